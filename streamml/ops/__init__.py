"""What people run: the embedded stack."""
