"""Parts that cost next to nothing, to find out what the real ones cost."""
