"""Rows on their way through a topology, as whole columns that never forget where they came from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from streamml.batch.column import Array, Columns, concatenate
from streamml.batch.frozen import frozen

Int = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

VALUE = "record.value"
KEY = "record.key"
HEADERS = "record.headers"
_NOT_EXPLODED: Final = -1


@frozen
class Origin:
    """Where each of ``n`` rows came from.

    Args:
        slot: int64 ``[n]``; number of the assignment (topic, partition, epoch) that delivered the row. A partition
            that comes back gets a new slot, so an old result can never be taken for a new one.
        ordinal: int64 ``[n]``; place of the parent record among those polled in its slot, counted from 0
            without gaps (offsets have gaps after compaction and transaction markers).
        offset: int64 ``[n]``; offset of the parent record.
        timestamp: int64 ``[n]``; record time in ms since 1970, UTC.
        flags: int64 ``[n]``; code of what happened to the row, see `streamml.batch.flags`.
        child: int64 ``[n]`` or ``None``; index of the row among its parent's children, -1 for a row that was not exploded.
            ``None``: no row was.
        last: bool ``[n]`` or ``None``; whether the row is its parent's last child.
    """

    slot: Int
    ordinal: Int
    offset: Int
    timestamp: Int
    flags: Int
    child: Int | None = None
    last: Mask | None = None

    def __len__(self) -> int:
        return len(self.slot)

    def take(self, index: Array | slice) -> Origin:
        """The rows at ``index`` (integers, mask or slice)."""
        return Origin(
            self.slot[index],
            self.ordinal[index],
            self.offset[index],
            self.timestamp[index],
            self.flags[index],
            None if self.child is None else self.child[index],
            None if self.last is None else self.last[index],
        )

    def with_flags(self, flags: Int) -> Origin:
        return Origin(self.slot, self.ordinal, self.offset, self.timestamp, flags, self.child, self.last)

    @staticmethod
    def join(parts: list[Origin]) -> Origin:
        """All rows of ``parts``, in that order."""
        if len(parts) == 1:
            return parts[0]
        exploded = any(part.child is not None for part in parts)
        return Origin(
            np.concatenate([part.slot for part in parts]),
            np.concatenate([part.ordinal for part in parts]),
            np.concatenate([part.offset for part in parts]),
            np.concatenate([part.timestamp for part in parts]),
            np.concatenate([part.flags for part in parts]),
            np.concatenate([part._numbers for part in parts]) if exploded else None,
            np.concatenate([part.lasts for part in parts]) if exploded else None,
        )

    @property
    def children(self) -> Int:
        """`child`, with zeros for rows that were never exploded."""
        return np.maximum(self._numbers, 0)

    @property
    def _numbers(self) -> Int:
        return np.full(len(self), _NOT_EXPLODED, np.int64) if self.child is None else self.child

    def child_at(self, index: int) -> int | None:
        """Index of one row among its parent's children; ``None`` where it was not exploded."""
        child = _NOT_EXPLODED if self.child is None else int(self.child[index])
        return None if child == _NOT_EXPLODED else child

    @property
    def lasts(self) -> Mask:
        """`last`, true for rows that were never exploded."""
        return np.ones(len(self), np.bool_) if self.last is None else self.last


@frozen
class MicroBatch:
    """Columns of one length with the origin of every row. Immutable: every change is a new batch."""

    origin: Origin
    columns: Columns

    def __len__(self) -> int:
        return len(self.origin.slot)

    def size_bytes(self, elsewhere: frozenset[str] = frozenset()) -> int:
        """Bytes of the columns; objects count as themselves, without what they refer to, and once if children share them.

        Args:
            elsewhere: columns of which the objects are counted already; what refers to them counts.
        """
        shared = self.origin.child is not None
        columns = self.columns.items()
        objects = [column for name, column in columns if column.dtype.hasobject and name not in elsewhere]
        return sum(column.nbytes for _, column in columns) + sum(_size(column, shared=shared) for column in objects)

    def take(self, index: Array | slice) -> MicroBatch:
        """The rows at ``index`` (integers, mask or slice), origin kept."""
        return MicroBatch(self.origin.take(index), {name: column[index] for name, column in self.columns.items()})

    def with_columns(self, added: Mapping[str, Array]) -> MicroBatch:
        """The same rows with further columns (one that exists is replaced)."""
        return MicroBatch(self.origin, {**self.columns, **added})

    def only(self, names: frozenset[str]) -> MicroBatch:
        """The same rows with no other columns than ``names``."""
        return MicroBatch(self.origin, {name: column for name, column in self.columns.items() if name in names})

    @staticmethod
    def join(parts: list[MicroBatch]) -> MicroBatch:
        """All rows of ``parts``, which have the same columns, in that order."""
        if len(parts) == 1:
            return parts[0]
        columns = {name: concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
        return MicroBatch(Origin.join([part.origin for part in parts]), columns)


def _size(column: Array, *, shared: bool) -> int:
    """Bytes of the objects in a column."""
    values = column.ravel().tolist()
    if shared:
        values = list({id(value): value for value in values}.values())
    return sum(map(sys.getsizeof, values))
