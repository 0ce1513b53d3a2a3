"""Arrival delays of flights that just left New York: a real topology with real data (see README.md)."""
