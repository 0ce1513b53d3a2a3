"""A topology is data: what comes in, what is done to it, what goes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar, Literal

from pydantic import BaseModel

from streamml.batch.column import ColumnType
from streamml.topology.steps import FeatureLookup, Step


@dataclass(frozen=True, init=False)
class Source:
    """Where events come from.

    Args:
        topics: one topic, or several with the same contract.
        schema: pydantic model of an event; unknown fields are ignored.
        start: where a group that never ran begins: ``"earliest"`` or ``"latest"``. There is no default on purpose.
        event_time: field with the event's own time (a ``datetime``); ``None``: the record's timestamp. The age of
            features counts from it.
        parsing: ``"strict"`` (types as declared, finite numbers, 64-bit integers) or ``"pydantic"`` (its rules and
            validators, slower).
        duplicate_keys: what a record with a repeated JSON key is: a dead letter, or the last one counts.
        on_tombstone: what a record without a value is: dropped and counted, passed on as a tombstone, or a dead letter.
        max_record_bytes: a larger record becomes a dead letter.
        partitions_added: what becomes of a partition that was added after the group began, as keys lie in other partitions
            from then on: ``"read"`` from its first record, with a warning, or ``"stop"`` the worker, so that the others can be
            caught up first.
        secret: fields whose values are not shown or exported with dead letters; in the topics they stay as they are.
    """

    topics: tuple[str, ...]
    schema: type[BaseModel]
    start: Literal["earliest", "latest"]
    event_time: str | None
    parsing: Literal["strict", "pydantic"]
    duplicate_keys: Literal["reject", "last"]
    on_tombstone: Literal["drop", "forward", "dead_letter"]
    max_record_bytes: int
    partitions_added: Literal["read", "stop"]
    secret: tuple[str, ...]

    def __init__(
        self,
        *topics: str,
        schema: type[BaseModel],
        start: Literal["earliest", "latest"],
        event_time: str | None = None,
        parsing: Literal["strict", "pydantic"] = "strict",
        duplicate_keys: Literal["reject", "last"] = "reject",
        on_tombstone: Literal["drop", "forward", "dead_letter"] = "drop",
        max_record_bytes: int = 1_000_000,
        partitions_added: Literal["read", "stop"] = "read",
        secret: Sequence[str] = (),
    ) -> None:
        secret = tuple(secret)
        for field, value in locals().items():
            if field != "self":
                object.__setattr__(self, field, value)


@dataclass(frozen=True)
class Sink:
    """Where predictions go.

    Args:
        topic: the prediction topic.
        schema: pydantic model of a prediction; every field is fed by the column of the same name.
        key: column that becomes the record's key; ``None`` keeps the event's key.
        headers: names of headers of the event that are passed on, trace headers for example; none of ``streamml`` and
            ``streamml.*``.
        provenance: where a prediction says what made it: ``"header"`` (one header ``streamml``), or ``"fields"``: the text
            fields ``prediction_id``, ``model``, ``flags`` and the integer ``revision`` of the schema, for consumers that
            cannot read headers.
        order: ``"partition"`` keeps the order of each source partition; ``"none"`` sends what is ready.
    """

    topic: str
    schema: type[BaseModel]
    key: str | None = None
    headers: tuple[str, ...] = ()
    provenance: Literal["header", "fields"] = "header"
    order: Literal["partition", "none"] = "partition"

    def into(self, topic: str) -> Sink:
        """The same sink with another topic."""
        return replace(self, topic=topic)


class Unsaid(BaseModel):
    """The schema of a `RedisSink` that names none."""


@dataclass(frozen=True)
class RedisSink:
    """Keeps the latest prediction of each key in Redis, for apps that look one up: beside the prediction topic, or instead of it.

    ::

        sink=sm.Sink("arrivals", schema=Arrival, key="flight"), latest=sm.RedisSink("arrivals", ttl="24h")
        sink=sm.RedisSink("arrivals", schema=Arrival, key="flight", ttl="24h")

    A row is settled when every sink has it. An older prediction never replaces a newer one (by time of the event's
    record, then its place, then revision), so that replays and what is sent again do no harm. Exactly once holds for
    Kafka; in Redis a prediction may be there before its transaction is committed. `streamml.latest` reads it.

    Args:
        name: in the keys of Redis.
        ttl: how long a prediction is kept after it was written; ``None``: for ever.
        schema: instead of a topic: pydantic model of a prediction. Beside one it is the topic's.
        key: instead of a topic: column that a prediction is looked up by. Beside one it is the topic's.
    """

    name: str
    ttl: str | None = None
    _: KW_ONLY
    schema: type[BaseModel] = Unsaid
    key: str | None = None

    # What a `Sink` has, as it is here.
    topic: ClassVar[None] = None
    headers: ClassVar[tuple[str, ...]] = ()
    provenance: ClassVar[Literal["header", "fields"]] = "header"
    order: ClassVar[Literal["partition", "none"]] = "partition"

    def into(self, topic: str) -> Sink:
        """A sink of the same predictions in a topic."""
        return Sink(topic, self.schema, self.key)


@dataclass(frozen=True)
class DeadLetterQueue:
    """Where records go that cannot be scored.

    Args:
        topic: the dead-letter topic.
        max_ratio: share of dead letters over which the group is paused, as something else is wrong then.
        min_sample: number of latest records that the share is taken over; below that it is not judged.
    """

    topic: str
    max_ratio: float = 0.05
    min_sample: int = 1000


@dataclass(frozen=True)
class FeatureLog:
    """Where workers write the feature values that each prediction used: for replays with features as they were, and for
    training data without skew. Rows that became dead letters are not in it.

    Args:
        topic: of the log; kept for as long as replays should reach back.
    """

    topic: str


@dataclass(frozen=True, init=False)
class Topology:
    """Events in, steps in the order that data flows, predictions out. Building one opens and reads nothing.

    Args:
        name: also the consumer group, unless settings say otherwise.
        sink: where predictions go: a topic, or a `RedisSink` instead of one. Dead letters are in a topic either way.
        feature_log: ``None``: what was looked up is forgotten.
        latest: the latest predictions by the sink's key in Redis, beside the topic; ``None``: in the topic only.
    """

    name: str
    source: Source
    steps: tuple[Step, ...]
    sink: Sink | RedisSink
    dead_letters: DeadLetterQueue
    feature_log: FeatureLog | None
    latest: RedisSink | None

    def __init__(
        self,
        name: str,
        *,
        source: Source,
        steps: Sequence[Step],
        sink: Sink | RedisSink,
        dead_letters: DeadLetterQueue,
        feature_log: FeatureLog | None = None,
        latest: RedisSink | None = None,
    ) -> None:
        for field, value in locals().items():
            if field != "self":
                object.__setattr__(self, field, tuple(steps) if field == "steps" else value)

    @property
    def redis_sink(self) -> RedisSink | None:
        """What keeps the latest predictions, beside a topic or instead of it."""
        return self.sink if isinstance(self.sink, RedisSink) else self.latest

    @property
    def destination(self) -> str:
        """Where predictions go: their topic, or ``redis:NAME``, which no topic is called."""
        return f"redis:{self.sink.name}" if isinstance(self.sink, RedisSink) else self.sink.topic

    @property
    def feature_columns(self) -> dict[str, ColumnType]:
        """Columns that are looked up, in the order of the steps: what a feature log holds."""
        lookups = (step for step in self.steps if isinstance(step, FeatureLookup))
        return {name: declared for step in lookups for one in step.sets for name, declared in one.outputs.items()}
