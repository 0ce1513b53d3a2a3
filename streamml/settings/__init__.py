"""Where and how things run: what differs between two deployments of one topology."""
