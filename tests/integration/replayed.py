"""Live predictions and a run's, as workers write them, without a worker: what diff and publish are given."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from confluent_kafka import Producer
from pydantic import BaseModel

import streamml as sm
from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.adapters.kafka.tail import Located, read_topic
from streamml.engine.identity import HEADER, read_header
from streamml.errors import StreamMLError
from streamml.ops.replay.registry import record, replays_plan
from streamml.ops.replay.replay import Replay, Span
from streamml.settings.settings import Settings, WorkerSettings

HOUR_MS = 3_600_000
START_MS = 1_767_225_600_000


class Order(BaseModel):
    id: str
    card: str = ""


class Fraud(BaseModel):
    order: str
    risk: float
    label: str = "good"
    parts: list[float] = []


class FraudWithProvenance(Fraud):
    prediction_id: str
    model: str
    revision: int
    flags: str


@dataclass
class Shop:
    """A topology, its topics, and what is in them."""

    brokers: str
    provenance: Literal["header", "fields"] = "header"
    guarantee: Literal["at_least_once", "exactly_once"] = "at_least_once"
    secret: Sequence[str] = ()
    partitions: int = 2
    config: Mapping[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"shop-{uuid.uuid4().hex[:8]}")
    records: int = 0
    runs: int = 0

    def __post_init__(self) -> None:
        self.client = {"bootstrap.servers": self.brokers}
        self.admin = KafkaAdmin(self.client)
        self.producer = Producer({**self.client, "partitioner": "murmur2_random", "linger.ms": 5})
        plans = [NewTopicPlan(f"{self.name}.in", 2, 1), NewTopicPlan(self.live_topic, self.partitions, 1, self.config)]
        letters = NewTopicPlan(f"{self.name}.dlq", 1, 1, {"cleanup.policy": "compact"})
        self.admin.create([*plans, letters])
        self.topic_id = self._id_of(f"{self.name}.in")

    def _id_of(self, topic: str) -> str:
        # A broker that has just made a topic may not know it yet where it is asked.
        for _ in range(100):
            if found := self.admin.topic_id(topic):
                return found
            threading.Event().wait(0.1)
        raise AssertionError(topic)

    @property
    def live_topic(self) -> str:
        return f"{self.name}.out"

    @property
    def topology(self) -> sm.Topology:
        schema = Fraud if self.provenance == "header" else FraudWithProvenance
        return sm.Topology(
            self.name,
            source=sm.Source(f"{self.name}.in", schema=Order, start="earliest", secret=self.secret),
            steps=[],
            sink=sm.Sink(self.live_topic, schema=schema, key="order", provenance=self.provenance),
            dead_letters=sm.DeadLetterQueue(f"{self.name}.dlq"),
        )

    @property
    def settings(self) -> Settings:
        return Settings(brokers=self.brokers, worker=WorkerSettings(processing_guarantee=self.guarantee))

    def events(self, times: Sequence[int]) -> None:
        """Records of the input, in turn to both of its partitions; record ``n`` is `place` (n)."""
        for time in times:
            number = self.records
            self.producer.produce(f"{self.name}.in", b"{}", partition=number % 2, timestamp=START_MS + time)
            self.records += 1
        assert self.producer.flush(30) == 0

    def id(self, number: int) -> str:
        return f"{self.topic_id}/{number % 2}/{number // 2}"

    def predict(
        self,
        topic: str,
        number: int,
        risk: float,
        *,
        time: int,
        revision: int = 0,
        key: str | None = None,
        label: str = "good",
        parts: Sequence[float] = (),
        child: int | None = None,
    ) -> None:
        """A prediction of record ``number``, as a sink writes it."""
        id = self.id(number) + ("" if child is None else f"#{child}")
        value: dict[str, Any] = {"order": key or f"o{number}", "risk": risk, "label": label, "parts": list(parts)}
        headers: list[tuple[str, str | bytes | None]] = [("trace", b"t"), (HEADER, f"1;{id};m@1;{revision};".encode())]
        if self.provenance == "fields":
            value |= {"prediction_id": id, "model": "m@1", "revision": revision, "flags": ""}
            headers = [("trace", b"t")]
        self.produce(topic, json.dumps(value).encode(), key or f"o{number}", START_MS + time, headers)

    def produce(
        self, topic: str, value: bytes | None, key: str, time_ms: int, headers: list[tuple[str, str | bytes | None]]
    ) -> None:
        self.producer.produce(topic, value, key.encode(), timestamp=time_ms, headers=headers)

    def letter(
        self, topic: str, number: int, *, time: int, error: str = "StepFailed", taken_back: bool = False
    ) -> None:
        """A dead letter of record ``number``, or its tombstone."""
        headers: list[tuple[str, str | bytes | None]] = [
            (f"streamml.dlq.{name}", value)
            for name, value in (("version", b"1"), ("step", b"price"), ("error", error.encode()))
        ]
        self.produce(
            topic, None if taken_back else b"{}", self.id(number), START_MS + time, [] if taken_back else headers
        )

    def flush(self) -> None:
        assert self.producer.flush(30) == 0

    def replay(self, *, recorded: bool = False, **changes: Any) -> Replay:
        """A run over all records so far; its topics are there. ``recorded``: others find it on the broker."""
        self.runs += 1
        ends = [(self.records + 1) // 2, self.records // 2]
        into = f"{self.live_topic}.replay.{self.runs}"
        draft = Replay(
            number=self.runs,
            topology=self.name,
            spans=tuple(Span(f"{self.name}.in", part, 0, ends[part]) for part in (0, 1)),
            topic_ids={f"{self.name}.in": self.topic_id},
            into=into,
            letters=f"{into}.dlq",
            models={"m": "1"},
            features="live",
            where=None,
            by="ann@host",
            started_ms=1,
            ended_ms=2,
            state="done",
        )
        found = replace(draft, **changes)
        if recorded:
            self.admin.create([replays_plan(self.name, 1)])
            record(self.settings, self.name, found)
        letters = NewTopicPlan(found.letters, 1, 1, {"cleanup.policy": "compact"})
        self.admin.create([NewTopicPlan(found.into, self.partitions, 1), letters])
        self._led([found.into, found.letters], self.partitions + 1)
        return found

    def _led(self, topics: Sequence[str], partitions: int) -> None:
        # A broker knows a partition of a topic that has just been made before it leads it.
        offsets = KafkaOffsets(self.client)
        for _ in range(100):
            with contextlib.suppress(StreamMLError):
                if len(offsets.bounds(offsets.partitions(topics))) == partitions:
                    return
            threading.Event().wait(0.1)
        raise AssertionError(topics)

    def remake(self, topic: str) -> None:
        """Make an output topic again."""
        self.admin.create([NewTopicPlan(topic, self.partitions, 1)])

    def read(self, topic: str) -> list[Located]:
        return list(read_topic(self.client, topic))

    def live(self) -> list[tuple[str, int, float]]:
        """Id, revision and risk of each prediction in the live topic."""
        found = []
        for one in self.read(self.live_topic):
            value = json.loads(one.record.value or b"{}")
            if self.provenance == "fields":
                found.append((value["prediction_id"], value["revision"], value["risk"]))
            else:
                mark = read_header(dict(one.record.headers)[HEADER] or b"")
                found.append((mark.id, mark.revision, value["risk"]))
        return found
