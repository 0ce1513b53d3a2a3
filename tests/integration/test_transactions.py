"""D2: transactions whose end nobody hears of, or that the broker does not take."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from streamml.adapters.kafka import transactions
from streamml.adapters.kafka.transactions import KafkaTransactions
from streamml.engine.engine import Engine
from streamml.ops.embedded.kafka import EmbeddedKafka
from tests.integration.test_worker import PARTITIONS, Job, event

pytestmark = pytest.mark.integration


class Deaf:
    """A producer that does not hear the answer to its first commit, which the broker has made or never got."""

    def __init__(self, producer: Any, *, made: bool) -> None:
        self._producer = producer
        self._made = made
        self.heard_nothing = False
        self.over = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def commit_transaction(self, timeout_s: float) -> None:
        if self._made:
            self._producer.commit_transaction(timeout_s)
        self.heard_nothing = True
        self.over.wait()


@pytest.fixture
def job(kafka: EmbeddedKafka) -> Job:
    made = Job(kafka.bootstrap_servers, exactly_once=True)
    made.create()
    return made


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "_PATIENCE_S", 1.0)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("made", [True, False], ids=["the commit was made", "the commit was not made"])
def test_d2_a_commit_whose_answer_is_lost_is_made_once(job: Job, made: bool) -> None:
    """D2.2, D2.6."""
    total = 3000
    job.produce([event(number, 1.0) for number in range(total)])
    worker = job.worker()
    sink = worker._sink
    assert isinstance(sink, KafkaTransactions)
    deaf = sink._producer = Deaf(sink._producer, made=made)
    try:
        worker.run(until=lambda engine: engine.statistics.predictions >= total)
    finally:
        deaf.over.set()
    assert deaf.heard_nothing
    found = [message.key() for message in job.read("out")]
    assert len(found) == len(set(found)) == total


def test_d2_l2_an_output_topic_that_takes_nothing_is_named_and_all_is_scored_once_when_it_does(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D2.2, L2.3."""
    monkeypatch.setattr(transactions, "LONG_S", 1.0)
    total, topic = 100, f"{job.name}.out"
    admin = AdminClient({"bootstrap.servers": job.servers})
    admin.delete_topics([topic])[topic].result()
    job.produce([event(number, 1.0) for number in range(total)])
    worker = job.worker()
    told = threading.Event()

    def settled(engine: Engine) -> bool:
        if not told.is_set() and repr(topic) in worker.ready().reason:
            told.set()
            admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
        return engine.statistics.predictions >= total

    worker.run(until=settled)
    assert told.is_set()
    found = [message.key() for message in job.read("out")]
    assert len(found) == len(set(found)) == total
