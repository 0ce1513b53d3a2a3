"""Records and outcomes for tests of the engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamml.batch.microbatch import MicroBatch, Origin
from streamml.batch.outcome import Failure, Kind, Outcomes, dead_letters
from streamml.ports.source import RawRecord, RecordRun, TopicPartition

PARTITION = TopicPartition("events", 0)


@dataclass(frozen=True)
class ListedRecords:
    """Raw records held in a list."""

    items: list[RawRecord]

    def __getitem__(self, index: int, /) -> RawRecord:
        return self.items[index]


def run_of(offsets: list[int], partition: TopicPartition = PARTITION) -> RecordRun:
    """A run whose value at offset ``o`` is the text of ``o``."""
    values = [str(offset).encode() for offset in offsets]
    return RecordRun(
        partition=partition,
        offsets=np.array(offsets, np.int64),
        timestamps=np.array(offsets, np.int64) + 1_000,
        values=np.fromiter(values, object, len(values)),
        keys=None,
        headers=None,
        size_bytes=sum(map(len, values)),
        records=ListedRecords([RawRecord(b"k", value, [("h", b"1")], 7) for value in values]),
    )


def predictions_of(batch: MicroBatch) -> Outcomes:
    """Predictions that echo the record's value."""
    rows = len(batch)
    values = batch.columns["record.value"]
    nothing = np.full(rows, None, object)
    headers = np.fromiter(([] for _ in range(rows)), object, rows)
    return Outcomes(Kind.PREDICTION, batch.origin, values=values, keys=nothing, headers=headers, model="m@1")


def letters_of(batch: MicroBatch) -> Outcomes:
    """Dead letters for every row."""
    return dead_letters(batch.origin, [Failure("step", "StepFailed", "It failed.")] * len(batch))


def failures(block: Outcomes) -> list[Failure]:
    """Why each row of a block of dead letters failed."""
    assert block.kind is Kind.DEAD_LETTER
    assert block.values is not None
    return list(block.values)


def origin_of(ordinals: list[int], child: list[int] | None = None, last: list[bool] | None = None) -> Origin:
    """An origin in slot 0 whose offsets are ten times the ordinals."""
    ordinal = np.array(ordinals, np.int64)
    zeros = np.zeros(len(ordinals), np.int64)
    return Origin(
        slot=zeros,
        ordinal=ordinal,
        offset=ordinal * 10,
        timestamp=zeros,
        flags=zeros,
        child=None if child is None else np.array(child, np.int64),
        last=None if last is None else np.array(last, bool),
    )
