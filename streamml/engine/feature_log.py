"""Feature values as each prediction used them: the wire format, version 1 (docs/reference/feature-log.md).

A record holds the rows of one source partition that went out together, as columns. All records of a source partition have one
key, so that they lie in one partition of the log, in the order of their offsets.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streamml.batch.column import Array, ColumnType
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import Origin
from streamml.batch.outcome import Outcomes
from streamml.engine.rows import stretches
from streamml.ports.feature_log import LoggedRows
from streamml.ports.sink import OutboundRecords

FORMAT: Final = 1
_EXPLODED: Final = 1
_HEAD: Final = struct.Struct("<BB8sIH")
_LENGTH: Final = struct.Struct("<H")
# Beside the values: offset, child and flags of a row, and what the texts of the flags may take of a record.
_ROW_BYTES: Final = 14
_TEXT_BYTES: Final = 32 * 1024
_MOST_ROWS: Final = 65_535
_USED: Final = "sm.used"


class LogSchema:
    """Which columns the records of a log hold, in which order.

    Args:
        columns: type by name, of all sets that the topology looks up, in the order of its steps.
    """

    def __init__(self, columns: Mapping[str, ColumnType]) -> None:
        self.columns = dict(columns)
        text = "\n".join(f"{name}:{declared}" for name, declared in columns.items())
        self.digest: Final = hashlib.sha256(text.encode()).digest()[:8]
        """First 8 bytes of the SHA-256 of the lines ``name:type``."""
        self._packed: np.dtype[Any] = np.dtype(
            [(_USED, "?"), *((name, declared.dtype, declared.shape) for name, declared in columns.items())]
        )

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in a record, at most."""
        return self._packed.itemsize + _ROW_BYTES

    def nothing(self) -> LoggedRows:
        """No rows at all."""
        none = np.empty(0, np.int64)
        columns = {name: np.empty((0, *kind.shape), kind.dtype) for name, kind in self.columns.items()}
        return LoggedRows(none, None, none, (), columns)

    def pack(self, columns: Mapping[str, Array], rows: int) -> Array:
        """The values of each row side by side, structured ``[rows]``, so that they are cut and joined as one column."""
        packed = np.zeros(rows, self._packed)
        packed[_USED] = True
        for name in self.columns:
            packed[name] = columns[name]
        return packed

    def encode(self, origin: Origin, packed: Array) -> bytes:
        """Rows of one source partition as a record's value."""
        codes, places = np.unique(origin.flags, return_inverse=True)
        exploded = origin.child is not None
        parts = [_HEAD.pack(FORMAT, _EXPLODED * exploded, self.digest, len(origin), len(codes))]
        for code in codes.tolist():
            text = FLAGS.text(code).encode()
            parts += (_LENGTH.pack(len(text)), text)
        parts.append(origin.offset.astype("<i8", copy=False).tobytes())
        if origin.child is not None:
            parts.append(origin.child.astype("<i4").tobytes())
        if len(codes) > 1:
            parts.append(places.astype("<u2").tobytes())
        parts += (packed[name].tobytes() for name in self.columns)
        return b"".join(parts)

    def decode(self, value: bytes) -> LoggedRows:
        """Read what `encode` wrote.

        Raises:
            ValueError: it is no record of version 1, is cut short, or was written for other columns.
        """
        try:
            version, kind, digest, rows, count = _HEAD.unpack_from(value)
        except struct.error as error:
            raise ValueError("The record is too short for a feature log's.") from error
        if version != FORMAT:
            raise ValueError(f"The record is of format {version} of a feature log; this program reads {FORMAT}.")
        if digest != self.digest:
            raise ValueError("The record was written for other feature sets, or other columns of them.")
        reading = _Reading(value, _HEAD.size)
        texts = tuple(reading.text() for _ in range(count))
        offset = reading.array("<i8", rows)
        child = reading.array("<i4", rows).astype(np.int64) if kind & _EXPLODED else None
        text = reading.array("<u2", rows).astype(np.int64) if count > 1 else np.zeros(rows, np.int64)
        columns = {name: reading.array(declared.dtype, rows, declared.shape) for name, declared in self.columns.items()}
        if reading.at != len(value) or (rows and int(text.max()) >= count):
            raise ValueError("The record is not what its head says.")
        return LoggedRows(offset, child, text, texts, columns)


@dataclass(slots=True)
class _Reading:
    value: bytes
    at: int

    def text(self) -> str:
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size))
        return self._take(length).decode()

    def array(self, dtype: Any, rows: int, shape: tuple[int, ...] = ()) -> Array:
        kind = np.dtype(dtype)
        size = rows * int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        return np.frombuffer(self._take(size), kind).reshape(rows, *shape)

    def _take(self, size: int) -> bytes:
        taken = self.value[self.at : self.at + size]
        if len(taken) < size:
            raise ValueError("The record is cut short.")
        self.at += size
        return taken


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Where a feature log is written.

    Args:
        topic: of the log.
        schema: of its records.
        max_record_bytes: what the topic takes.
    """

    topic: str
    schema: LogSchema
    max_record_bytes: int = 1_000_000

    def records(self, rows: Sequence[Outcomes], prefixes: Sequence[str], now: float) -> OutboundRecords | None:
        """What these rows used, one record for each block and source partition, or more where one would be too large.

        Args:
            prefixes: prediction id prefixes by slot.
            now: seconds since 1970, the time of the records: the log is kept for as long after it was written as its topic says.

        Returns:
            The records in the order of the rows; ``None`` where no row used features.
        """
        keys: list[bytes] = []
        values: list[bytes] = []
        most = max(1, min(_MOST_ROWS, (self.max_record_bytes - _TEXT_BYTES) // self.schema.row_bytes))
        for origin, packed in map(_used, rows):
            for number, start, end in stretches(origin):
                for first in range(start, end, most):
                    part = slice(first, min(first + most, end))
                    values.append(self.schema.encode(origin.take(part), packed[part]))
                    keys.append(partition_key(prefixes[number]))
        if not values:
            return None
        return OutboundRecords(self.topic, keys, values, [[]] * len(values), [int(now * 1000)] * len(values))


def partition_key(prefix: str) -> bytes:
    """Key of a source partition's records, ``topic id/partition``, given the prefix of its prediction ids."""
    return prefix.removesuffix("/").encode()


def _used(block: Outcomes) -> tuple[Origin, Array]:
    """The rows that used features: a tombstone that is passed on used none."""
    if block.features is None:
        return block.origin.take(slice(0, 0)), np.empty(0)
    used = block.features[_USED]
    return (block.origin, block.features) if used.all() else (block.origin.take(used), block.features[used])
