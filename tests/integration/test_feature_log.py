"""A feature log on a real broker: what workers write, and reading a stretch of it back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer

import streamml as sm
from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.adapters.kafka.feature_log import KafkaFeatureLog, RecordedOnKafka, missing
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import Origin
from streamml.engine.feature_log import LogSchema
from streamml.errors import FatalError
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from tests.integration.scoring import Job, payment

pytestmark = pytest.mark.integration

SCHEMA = LogSchema({"a.x": sm.f8})
PREFIX = "topic/0/"
MINUTE = 60_000


class Log:
    """A log that is written as if by a worker: ``minute`` by ``minute``."""

    def __init__(self, brokers: str, schema: LogSchema = SCHEMA) -> None:
        self.client = {"bootstrap.servers": brokers}
        self.topic = f"log-{uuid.uuid4().hex[:8]}"
        KafkaAdmin(self.client).create([NewTopicPlan(self.topic, 3, 1)])
        self.read = KafkaFeatureLog(self.client, self.topic, 3, schema)
        self._producer = Producer({**self.client, "partitioner": "murmur2_random"})

    def write(self, start: int, end: int, *, minute: int, key: bytes = b"topic/0") -> None:
        offset = np.arange(start, end)
        zeros = np.zeros(len(offset), np.int64)
        flags = np.full(len(offset), FLAGS.code(f"a@{minute}"), np.int64)
        packed = SCHEMA.pack({"a.x": offset + minute / 100}, len(offset))
        value = SCHEMA.encode(Origin(zeros, offset, offset, zeros, flags), packed)
        self._producer.produce(self.topic, value, key, timestamp=minute * MINUTE)
        assert self._producer.flush(30) == 0


@pytest.fixture
def log(kafka: EmbeddedKafka) -> Log:
    return Log(kafka.bootstrap_servers)


@pytest.fixture
def recorded(log: Log) -> Iterator[RecordedOnKafka]:
    made = RecordedOnKafka(log.read)
    yield made
    made.close()


def test_a_stretch_is_read_back_in_pieces_each_row_once(log: Log, recorded: RecordedOnKafka) -> None:
    """Also where a crash has written rows twice: the first ones count."""
    for number in range(200):
        log.write(number * 10, number * 10 + 10, minute=number + 1)
        log.write(0, 5, minute=number + 1, key=b"topic/%d" % (number % 5 + 1))
        if number % 50 == 49:
            log.write(number * 10 - 30, number * 10 + 10, minute=number + 1)

    found = [recorded.rows(PREFIX, first, first + 99, 60 * MINUTE) for first in range(655, 1955, 100)]

    assert np.concatenate([one.offset for one in found]).tolist() == list(range(655, 1955))
    values = np.concatenate([one.columns["a.x"] for one in found])
    minutes = [int(one.texts[place].removeprefix("a@")) for one in found for place in one.text.tolist()]
    assert minutes == [offset // 10 + 1 for offset in range(655, 1955)]
    assert values.tolist() == [offset + (offset // 10 + 1) / 100 for offset in range(655, 1955)]


@pytest.mark.parametrize("since", [0, 150 * MINUTE, 10**6 * MINUTE], ids=["before all", "too late", "after all"])
def test_rows_are_found_wherever_the_clocks_stood(log: Log, recorded: RecordedOnKafka, since: int) -> None:
    for number in range(300):
        log.write(number, number + 1, minute=number + 1)

    assert recorded.rows(PREFIX, 100, 102, since).offset.tolist() == [100, 101, 102]
    assert recorded.rows(PREFIX, 100, 103, since).offset.tolist() == [100, 101, 102, 103]
    assert recorded.rows(PREFIX, 290, 400, since).offset.tolist() == list(range(290, 300))


def test_the_ends_that_a_log_does_not_reach_are_named(log: Log) -> None:
    log.write(100, 125, minute=1)
    log.write(135, 200, minute=2)
    assert missing(log.read, PREFIX, (100, 200), 0) == []
    assert missing(log.read, PREFIX, (120, 130), 0) == []
    assert missing(log.read, PREFIX, (0, 300), 0) == [(0, 100), (200, 300)]
    assert missing(log.read, PREFIX, (300, 400), 0) == [(300, 400)]
    assert missing(log.read, "other/7/", (5, 9), 0) == [(5, 9)]


def test_a_log_of_other_features_is_refused_with_its_place(kafka: EmbeddedKafka) -> None:
    other = Log(kafka.bootstrap_servers, LogSchema({"a.y": sm.f8}))
    other.write(0, 10, minute=1)
    reading = RecordedOnKafka(other.read)
    try:
        with pytest.raises(FatalError, match=rf"{other.topic}.*offset 0.*other feature sets"):
            reading.rows(PREFIX, 0, 10, 0)
    finally:
        reading.close()


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_worker_writes_what_its_predictions_used(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path, guarantee: str
) -> None:
    job = Job(kafka.bootstrap_servers, redis_server.url, tmp_path, feature_log=True, guarantee=guarantee)
    job.create()
    job.features({"a1": 0.5})
    job.produce([payment(number, account="a1" if number % 3 else "unknown") for number in range(90)])
    job.produce([b"broken", b"broken"])
    assert job.run()["predictions"] == 90

    schema = LogSchema(job.topology.feature_columns)
    recorded = RecordedOnKafka(KafkaFeatureLog({"bootstrap.servers": job.brokers}, f"{job.name}.features", 2, schema))
    try:
        found = [(*made.id.rpartition("/"), score, made.flags) for score, made in job.predictions().values()]
        for prefix, _, offset, score, flags in sorted(found, key=lambda one: (one[0], int(one[2]))):
            rows = recorded.rows(f"{prefix}/", int(offset), int(offset), 0)
            mean = float(rows.columns[f"{job.name}.mean"][0])
            assert rows.texts[int(rows.text[0])] == flags
            assert score == pytest.approx(1.0 + 2 * int(offset) + int(prefix[-1]) + mean)
    finally:
        recorded.close()
