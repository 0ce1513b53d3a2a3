"""What a worker tells about itself: measurements of whole batches, and the catalogue of metrics."""
