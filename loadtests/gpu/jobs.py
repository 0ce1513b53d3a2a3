"""What is scored: events of an id, from which a transform makes the model's input, as a table in memory has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydantic import BaseModel

import streamml as sm
from streamml.batch.column import Array, object_array
from streamml.ports.model import Signature, Tensor
from streamml.ports.source import RecordRun, TopicPartition

_PREPARED: Final = 512
_STAMP: Final = 1_700_000_000_000


class Event(BaseModel):
    id: int


class Score(BaseModel):
    id: int
    score: float


@dataclass(frozen=True)
class Job:
    """A network's work.

    Args:
        inputs: makes the model's input of ids; an array, or one of arrays.
        column: its declared type.
        most: largest batch.
        lengths: of the padding ladder, for inputs of any length.
    """

    name: str
    signature: Signature
    inputs: Callable[[Array], Array]
    column: str
    most: int
    lengths: tuple[int, ...] = ()

    def topology(self) -> sm.Topology:
        """Without a lookup: what is measured is the way to the device and back."""

        def made(columns: Mapping[str, Array]) -> dict[str, Array]:
            return {self.input: self.inputs(columns["id"])}

        batching = sm.Batching(max_batch_size=self.most, lengths=self.lengths)
        output = next(iter(self.signature.outputs))
        return sm.Topology(
            f"gpu-{self.name}",
            source=sm.Source("gpu.events", schema=Event, start="earliest"),
            steps=[
                sm.Transform(made, inputs=("id",), outputs={self.input: self.column}),
                sm.Onnx(self.name, outputs={"score": output}, batching=batching),
            ],
            sink=sm.Sink("gpu.scores", schema=Score, key="id"),
            dead_letters=sm.DeadLetterQueue("gpu.dlq"),
        )

    @property
    def input(self) -> str:
        """The name of the model's only input."""
        return next(iter(self.signature.inputs))


def dense_job(name: str, shape: tuple[int, ...], most: int) -> Job:
    """Rows of one shape."""
    table = np.random.default_rng(0).normal(size=(_PREPARED, *shape)).astype(np.float32)
    signature = Signature({"x": Tensor("float32", shape)}, {"y": Tensor("float32", ())})
    column = f"f4[{','.join(map(str, shape))}]"
    return Job(name, signature, lambda ids: table[ids % _PREPARED], column, most)


def text_job(name: str, vocabulary: int, longest: int, most: int) -> Job:
    """Tokens of texts; lengths are log-normal with a median of a twelfth of the longest, as those of short messages are."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(np.log(longest / 12), 0.9, _PREPARED), 1, longest).astype(np.int64)
    table = object_array([random.integers(1, vocabulary, length) for length in lengths], _PREPARED)
    signature = Signature({"x": Tensor("int64", (None,))}, {"y": Tensor("float32", ())})
    ladder = tuple(longest >> power for power in (4, 3, 2, 1, 0))
    return Job(name, signature, lambda ids: table[ids % _PREPARED], "object", most, ladder)


def runs_of(events: int, partitions: int = 4, size: int = 1024) -> list[RecordRun]:
    """So many events, as polls of a client."""
    return [
        run_of(start, min(start + size, events), number % partitions)
        for number, start in enumerate(range(0, events, size))
    ]


def run_of(start: int, end: int, partition: int) -> RecordRun:
    """The events with these ids, as records of one partition with these offsets."""
    values: list[Any] = [b'{"id":%d}' % number for number in range(start, end)]
    stamps = np.full(end - start, _STAMP, np.int64)
    where = TopicPartition("gpu.events", partition)
    return RecordRun(
        where, np.arange(start, end), stamps, object_array(values, len(values)), None, None, sum(map(len, values)), []
    )
