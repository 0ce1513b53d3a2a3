"""Real flights through real Kafka and Redis, with faults on purpose and a referee."""
