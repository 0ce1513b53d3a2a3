"""The contract of a sink of records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from streamml.batch.frozen import frozen
from streamml.ports.source import Headers, Positions


@frozen
class OutboundRecords:
    """``n`` records for one topic, in order, as columns of equal length.

    ``timestamps`` are ms since 1970 UTC; ``headers`` may be shared between records and must not be changed.
    """

    topic: str
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers]
    timestamps: Sequence[int]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that the broker will never take."""

    block: int
    index: int
    message: str


@frozen
class Delivered:
    """Every record of one `Sink.send` is acknowledged by the broker, or refused for good."""

    token: int
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class TransactionEnded:
    """A transaction has ended: everything in it counts (``committed``), or nothing does."""

    committed: bool


class Sink(Protocol):
    """Writes records. All calls come from one thread.

    Records of one `send` to one output partition are written in order and after those of earlier calls. The caller
    bounds what is outstanding, so `send` never waits for the broker. Transient faults are retried inside, without limit
    and without reordering.
    """

    def open(self) -> None:
        """Connect.

        Raises:
            SinkUnavailable: the broker does not answer.
        """
        ...

    def send(self, token: int, blocks: Sequence[OutboundRecords]) -> None:
        """Queue the records of all blocks; `completions` reports ``token`` when all have ended."""
        ...

    def completions(self) -> Sequence[Delivered | TransactionEnded]:
        """What has ended since the last call; does not wait.

        Raises:
            FatalError: the producer cannot go on (fenced, no rights).
        """
        ...

    def trouble(self) -> str | None:
        """What the broker has not taken for long, with its topics; ``None`` while it does. Any thread may ask; it does not wait."""
        ...

    def close(self, timeout_s: float) -> int:
        """Flush for at most ``timeout_s``; returns the number of records still not acknowledged."""
        ...


@runtime_checkable
class TransactionalSink(Sink, Protocol):
    """Writes records in transactions, one at a time: `send` begins one where none is open.

    After `commit` or `abort` the caller sends nothing until `completions` has reported `TransactionEnded`, which comes
    after the reports of its records. Of a transaction that was not committed, records may never be reported.
    """

    def commit(self, positions: Positions) -> None:
        """Commit what was sent, with the group's positions. It fails where this worker's generation of the group is over."""
        ...

    def abort(self) -> None:
        """Take back what was sent."""
        ...
