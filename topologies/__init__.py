"""Topologies that ship with streamml."""
