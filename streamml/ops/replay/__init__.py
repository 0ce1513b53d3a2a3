"""A stretch of a topic scored again: planned, run beside live traffic, compared, published."""
