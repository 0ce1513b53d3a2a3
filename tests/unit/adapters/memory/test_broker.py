"""The broker in memory under threads, and how its groups share partitions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.feature_store import MemoryFeatureStore
from streamml.adapters.memory.group import balanced
from streamml.adapters.memory.sink import MemorySink
from streamml.adapters.memory.source import MemorySource
from streamml.clock import SystemClock
from streamml.compose.stages import build_stages, engine_config
from streamml.engine.assignment import SlotNames
from streamml.engine.engine import Engine
from streamml.errors import ConfigError
from streamml.ports.feature_store import FeatureSchema
from streamml.ports.source import TopicPartition
from streamml.runtime.reader import WorkerConfig
from streamml.runtime.worker import Worker
from streamml.settings.settings import WorkerSettings
from streamml.testing.models import models_of
from tests.testing.shop import accounts, payment, payments, score


def test_a_worker_with_threads_runs_on_it() -> None:
    broker, topology, names = MemoryBroker(), payments(), SlotNames()
    for topic, partitions in (("payments", 3), ("verdicts", 2), ("payments.dlq", 1)):
        broker.create_topic(topic, partitions=partitions)
    for number in range(2_000):
        broker.append("payments", payment(number).model_dump_json().encode(), key=str(number % 50).encode())
    store = MemoryFeatureStore()
    store.load(FeatureSchema("accounts", tuple(accounts.columns.items())), {"ann": {"mean": 5.0}}, 0)
    models = models_of(topology, {"fraud": score}, Path("models"))
    worker = Worker(
        Engine(engine_config(topology, models, WorkerSettings(), "one"), names),
        MemorySource(broker, ["payments"], "payments", "earliest"),
        build_stages(topology, models, store, names.prefixes),
        MemorySink(broker),
        SystemClock(),
        WorkerConfig(),
    )
    stopped = worker.run(until=lambda engine: sum(broker.committed("payments").values()) == 2_000)
    assert stopped.abandoned == 0
    assert len({record.key for record in broker.records("verdicts")}) == len(broker.records("verdicts")) == 2_000


def test_topics_are_made_once_and_with_partitions() -> None:
    broker = MemoryBroker()
    broker.create_topic("events")
    with pytest.raises(ConfigError, match="already"):
        broker.create_topic("events")
    with pytest.raises(ConfigError, match="0 partitions"):
        broker.create_topic("others", partitions=0)
    with pytest.raises(ConfigError, match="too large"):
        broker.append("events", bytes(1_000_001))


@given(st.integers(0, 12), st.integers(1, 5))
def test_shares_are_even_and_nothing_moves_without_need(partitions: int, members: int) -> None:
    places = [TopicPartition("events", number) for number in range(partitions)]
    people = [object() for _ in range(members)]
    before = balanced(places, people, {})
    counts = Counter(map(id, before.values()))
    assert set(before) == set(places)
    assert max(counts.values(), default=0) - min((counts[id(one)] for one in people), default=0) <= 1
    assert balanced(places, people, before) == before
    grown = balanced(places, [*people, object()], before)
    moved = [where for where in places if grown[where] is not before[where]]
    assert all(grown[where] not in people for where in moved)
