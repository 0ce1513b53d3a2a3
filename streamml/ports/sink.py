"""The contract of a sink of records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streamml.ports.source import Headers


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Delivered:
    """Every record of one `Sink.send` is acknowledged by the broker, or refused for good."""

    token: int
    refusals: tuple[Refusal, ...] = ()


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

    def completions(self) -> list[Delivered]:
        """What has ended since the last call; does not wait.

        Raises:
            FatalError: the producer cannot go on (fenced, no rights).
        """
        ...

    def close(self, timeout_s: float) -> int:
        """Flush for at most ``timeout_s``; returns the number of records still not acknowledged."""
        ...
