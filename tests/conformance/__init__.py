"""What each port promises, checked on every adapter of it."""
