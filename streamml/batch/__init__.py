"""Columns, the MicroBatch and how its rows end."""
