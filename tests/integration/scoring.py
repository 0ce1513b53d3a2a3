"""A small whole job on real Kafka and Redis: payments, a feature of the account, a model that adds the two."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from confluent_kafka import Producer
from pydantic import BaseModel

import streamml as sm
from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.adapters.kafka.tail import Located as Found
from streamml.adapters.kafka.tail import read_topic
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.loader import LoadPlan, load
from streamml.batch.column import object_array
from streamml.compose.locate import Located
from streamml.engine.identity import Provenance, read_header
from streamml.ops.run import RunOptions, StopSignal, run
from streamml.ops.topics import LETTER_BYTES
from streamml.ports.feature_store import FeatureSchema
from streamml.settings.settings import RedisSettings, Settings, WorkerSettings
from tests.conformance.onnx_files import graph, node, store, value

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
DAY_US = 86_400_000_000


class Payment(BaseModel):
    id: str
    account: str
    amount: float
    at: datetime
    count: int = 1


class Score(BaseModel):
    id: str
    score: float


def to_matrix(columns: dict[str, Any]) -> dict[str, Any]:
    """Amount and the stored mean side by side."""
    return {"x": np.stack([columns["amount"], columns["mean"]], axis=1).astype(np.float32)}


def model(folder: Path) -> Path:
    """A repository with the model ``adder``: ``score`` is the sum of a row of ``x``."""
    added = graph(
        [node("ReduceSum", ["x", "axis"], ["score"], keepdims=1)],
        [value("x", "float32", ["rows", 2])],
        [value("score", "float32", ["rows", 1])],
        {"axis": np.array([1], np.int64)},
    )
    root = folder / "models"
    if not root.exists():
        store(root, added, "adder")
    return root


@dataclass
class Job:
    """Topics, a feature set and a topology of one test."""

    brokers: str
    redis_url: str
    folder: Path
    policies: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    sink: dict[str, Any] = field(default_factory=dict)
    max_ratio: float = 0.9
    max_in_flight_rows: int = 50_000
    feature_log: bool = False
    latest: sm.RedisSink | None = None
    redis_only: bool = False
    guarantee: Any = "at_least_once"
    options: dict[str, Any] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"pay-{uuid.uuid4().hex[:8]}")

    @property
    def accounts(self) -> sm.FeatureSet:
        policies = {"max_default_ratio": 1.0, **self.policies}
        return sm.FeatureSet(self.name, key="account", columns={"mean": sm.f4(default=-1000.0)}, ttl="36h", **policies)

    @property
    def topology(self) -> sm.Topology:
        mean = f"{self.name}.mean"
        return sm.Topology(
            self.name,
            source=sm.Source(
                f"{self.name}.in", **{"schema": Payment, "start": "earliest", "event_time": "at", **self.source}
            ),
            steps=[
                sm.FeatureLookup(self.accounts),
                sm.Transform(
                    lambda columns: to_matrix({"amount": columns["amount"], "mean": columns[mean]}),
                    inputs=("amount", mean),
                    outputs={"x": "f4[2]"},
                    name="to_matrix",
                ),
                sm.Onnx("adder", outputs={"score": "score"}),
            ],
            sink=sm.RedisSink(self.name, schema=Score, key="id")
            if self.redis_only
            else sm.Sink(f"{self.name}.out", **{"schema": Score, "key": "id", **self.sink}),
            dead_letters=sm.DeadLetterQueue(f"{self.name}.dlq", max_ratio=self.max_ratio),
            feature_log=sm.FeatureLog(f"{self.name}.features") if self.feature_log else None,
            latest=self.latest,
        )

    @property
    def located(self) -> Located[sm.Topology]:
        model(self.folder)
        return Located(self.topology, self.folder)

    @property
    def settings(self) -> Settings:
        return Settings(
            brokers=self.brokers,
            redis=RedisSettings(url=self.redis_url, timeout_ms=300, options=self.options),
            worker=WorkerSettings(
                drain_ms=3000, max_in_flight_rows=self.max_in_flight_rows, processing_guarantee=self.guarantee
            ),
        )

    def create(self, *, max_message_bytes: int = 1_048_588) -> None:
        """Make the topics, two partitions each."""
        config = {"max.message.bytes": str(max_message_bytes)}
        letters = {"cleanup.policy": "compact", "max.message.bytes": str(LETTER_BYTES)}
        out = [] if self.redis_only else [NewTopicPlan(f"{self.name}.out", 2, 1)]
        plans = [NewTopicPlan(f"{self.name}.in", 2, 1, config), *out]
        KafkaAdmin({"bootstrap.servers": self.brokers}).create(
            [*plans, NewTopicPlan(f"{self.name}.dlq", 1, 1, letters)]
        )
        if self.feature_log:
            self.create_log()

    def create_log(self, config: Mapping[str, str] = MappingProxyType({})) -> None:
        """Make the topic of the feature log."""
        KafkaAdmin({"bootstrap.servers": self.brokers}).create([NewTopicPlan(f"{self.name}.features", 2, 1, config)])

    def features(self, means: dict[str, float], *, at: datetime = NOW, columns: dict[str, Any] | None = None) -> str:
        """Load a version of the feature set; returns its name."""
        declared = columns or self.accounts.columns
        rows: dict[str, Any] = {
            "account": object_array(means, len(means)),
            "event_time": np.full(len(means), int(at.timestamp() * 1e6)).astype("M8[us]"),
        }
        rows |= {name: np.array(list(means.values()), kind.dtype) for name, kind in declared.items()}
        plan = LoadPlan(FeatureSchema(self.name, tuple(declared.items())), ("account",))
        return load(Server(self.redis_url), plan, [rows]).version

    def produce(self, records: list[bytes | None], *, key: bytes | None = b"k") -> None:
        """Write records, in turn to both partitions."""
        producer = Producer({"bootstrap.servers": self.brokers, "message.max.bytes": 20_000_000})
        for number, record in enumerate(records):
            producer.produce(f"{self.name}.in", record, key, partition=number % 2, headers=[("trace", b"t%d" % number)])
        assert producer.flush(30) == 0

    def run(self) -> dict[str, Any]:
        """One worker until everything is settled; its summary."""
        return run(self.located, self.settings, RunOptions(until_caught_up=True, patience_s=20), StopSignal())

    def predictions(self) -> dict[str, tuple[float, Provenance]]:
        """Score and provenance by the id in the value; each exactly once."""
        found: dict[str, tuple[float, Provenance]] = {}
        for one in self.read("out"):
            document = json.loads(one.record.value or b"")
            assert document["id"] not in found
            mark = dict(one.record.headers)["streamml"]
            assert mark is not None
            found[document["id"]] = (document["score"], read_header(mark))
        return found

    def letters(self) -> list[tuple[bytes | None, str, str]]:
        """Value, error and message of each dead letter."""
        found = []
        for one in self.read("dlq"):
            headers = {name: (value or b"").decode(errors="replace") for name, value in one.record.headers}
            found.append((one.record.value, headers["streamml.dlq.error"], headers["streamml.dlq.message"]))
        return found

    def read(self, part: str) -> list[Found]:
        return list(read_topic({"bootstrap.servers": self.brokers}, f"{self.name}.{part}"))


def payment(number: int, account: str = "a1", **changes: Any) -> bytes:
    """A good record."""
    good = {"id": f"p{number}", "account": account, "amount": 1.0 + number, "at": NOW.isoformat()}
    return json.dumps({**good, **changes}).encode()
