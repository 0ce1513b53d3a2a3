"""The contract of a source of records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from streamml.batch.column import Array
from streamml.batch.frozen import frozen
from streamml.batch.microbatch import Int

Headers = list[tuple[str, bytes | None]]


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


Positions = Mapping[TopicPartition, int]
"""Next offset per partition."""


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record as it is in its topic."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int


class RawRecords(Protocol):
    """Records by index; reading one may cost more than reading a column."""

    def __getitem__(self, index: int, /) -> RawRecord: ...


@frozen
class RecordRun:
    """``n`` ≥ 1 records of one partition, offsets ascending (gaps allowed).

    Args:
        partition: where they come from.
        offsets: int64 ``[n]``.
        timestamps: int64 ``[n]``, ms since 1970 UTC.
        values: object ``[n]`` of bytes, ``None`` for a tombstone.
        keys: object ``[n]`` of bytes or ``None``; not given where the source was told that nobody reads keys.
        headers: object ``[n]`` of `Headers`; not given where nobody reads headers.
        size_bytes: bytes of all values and keys.
        records: the same records whole, for dead letters.
    """

    partition: TopicPartition
    offsets: Int
    timestamps: Int
    values: Array
    keys: Array | None
    headers: Array | None
    size_bytes: int
    records: RawRecords = field(repr=False)

    def __len__(self) -> int:
        return len(self.offsets)

    def where(self) -> str:
        """Topic, partition and offsets, for messages."""
        return f"{self.partition} offsets {self.offsets[0]} to {self.offsets[-1]}"


class SourceListener(Protocol):
    """Who is told about assignments. Called only from inside `Source.poll` and `Source.close`, on that thread."""

    def assigned(self, positions: Positions) -> None:
        """These partitions are now ours; their records start at these offsets."""
        ...

    def revoking(self, partitions: Sequence[TopicPartition]) -> Positions:
        """These partitions are about to go. May take as long as the revoke budget; returns what to commit for them."""
        ...

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """These partitions are gone already; nothing of them may be committed."""
        ...


class Source(Protocol):
    """A group member that reads records.

    `open` first, then `poll` again and again, `close` last; one call at a time, from whatever thread.
    """

    def open(self, listener: SourceListener) -> None:
        """Join the group. Returns before partitions are assigned.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        ...

    def poll(self, max_rows: int, timeout_s: float) -> list[RecordRun]:
        """Records that are there, at most ``max_rows``; waits for the first of them at most ``timeout_s``.

        Runs of one partition come in offset order. After ``pause`` the list is empty.

        Raises:
            SourceUnavailable: try again; the client reconnects by itself.
            OffsetOutOfRange, Fenced, FatalError: the worker has to stop.
        """
        ...

    def commit(self, positions: Positions, *, wait: bool) -> None:
        """Commit positions of partitions that are ours. ``wait`` returns when the broker has answered.

        A broker fences members, not partitions: it is the caller who must not speak for a partition that has gone.

        Raises:
            SourceUnavailable: with ``wait``: not committed, the caller may try again.
            Fenced: another member has this identity.
        """
        ...

    def ends(self) -> Positions:
        """Next offsets of partitions whose end was reached since the last call, all records before them delivered.

        They lie past the last record where nobody is shown what follows it: markers of transactions, aborted records.
        """
        ...

    def failed_commits(self) -> Sequence[TopicPartition]:
        """Partitions of which a commit without ``wait`` has failed since the last call."""
        ...

    def pause(self) -> None:
        """Deliver nothing from any partition, present or future, until `resume`; `poll` goes on being called."""
        ...

    def resume(self) -> None:
        """Deliver again."""
        ...

    def committed(self) -> Positions:
        """Committed offsets of all partitions of the topics, whoever owns them; partitions without one are absent.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        ...

    def watermarks(self) -> dict[TopicPartition, tuple[int, int]]:
        """Lowest offset and next offset to be written, per partition of the topics.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        ...

    def trouble(self) -> str | None:
        """Why the broker does not answer, as far as is known; ``None`` while it does. Any thread may ask; it does not wait."""
        ...

    def joined(self) -> bool:
        """Whether this is a member of its group, with partitions or without, as far as is known. Any thread may ask."""
        ...

    def lag(self) -> int:
        """Records of our partitions that were not polled, as of some seconds ago. Any thread may ask; it does not wait."""
        ...

    def close(self) -> None:
        """Leave; the listener hears ``revoking`` for what was still ours."""
        ...
