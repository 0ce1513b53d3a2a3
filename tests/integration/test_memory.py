"""B2, B3 on a real broker: memory while a model stands still, and after."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from streamml.ops.embedded.kafka import EmbeddedKafka
from tests.integration.test_worker import PARTITIONS, Job

pytestmark = pytest.mark.integration

RECORDS = 150
RECORD_MB = 2


def create(job: Job) -> None:
    large = {"max.message.bytes": str(2 * RECORD_MB * 1_000_000)}
    topics = [NewTopic(f"{job.name}.{part}", PARTITIONS, 1, config=large) for part in ("in", "out", "dlq")]
    admin = AdminClient({"bootstrap.servers": job.servers})
    for created in admin.create_topics(topics).values():
        created.result()


def produce(job: Job) -> None:
    client = {"bootstrap.servers": job.servers, "message.max.bytes": 10_000_000}
    producer = Producer(client)
    padding = "x" * RECORD_MB * 1_000_000
    for number in range(RECORDS):
        value = json.dumps({"id": f"e{number}", "amount": 1.0, "padding": padding})
        producer.produce(f"{job.name}.in", value, partition=number % PARTITIONS)
        producer.poll(0)
        if number % 50 == 49:
            assert producer.flush(60) == 0


def test_b2_b3_memory_stays_bounded_while_a_model_stands_still_before_large_records(kafka: EmbeddedKafka) -> None:
    """B2.1, B3.1."""
    job = Job(kafka.bootstrap_servers)
    create(job)
    produce(job)
    command = [sys.executable, "-m", "tests.integration.standing_still", job.servers, job.name, str(RECORDS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            before, _ = map(int, process.stdout.readline().split())
            still, _ = map(int, process.stdout.readline().split())
            process.stdin.write("go on\n")
            process.stdin.flush()
            after, most_rows = map(int, process.stdout.readline().split())
            assert process.wait(60) == 0
        finally:
            process.kill()
    # Less than half of the backlog: 16 MB in flight, two polls of 8 MB, 32 MB fetched ahead, and what fetching and scoring need.
    assert still - before < 120
    assert after - before < 150
    assert most_rows * RECORD_MB < 16 + 32
    assert len(job.read("out")) == RECORDS
