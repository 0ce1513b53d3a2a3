"""The command line: arguments to `streamml.ops`, answers to printed text. Nothing else prints."""
