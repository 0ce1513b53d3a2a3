"""The one place where topology, settings and adapters become a running worker."""
