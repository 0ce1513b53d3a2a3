"""Real Apache Kafka without a container engine."""
