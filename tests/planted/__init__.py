"""Mistakes that must not survive: each is planted into a copy of the tree, and a named test has to fail."""
