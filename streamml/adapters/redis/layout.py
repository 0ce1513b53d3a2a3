"""How feature values lie in Redis: the bytes of a value. Pure functions; nothing here talks to a server.

Every other reader or writer can rely on this and on the keys (`streamml.adapters.redis.keys`); ``docs/reference/redis-layout.md`` says
the same with an example.

A value, little-endian throughout; of a loaded set, and of a streaming one::

    loaded  streaming  size  what
    0       0          4     the bytes 53 4D 4C 31, "SML1", or 53 4D 4C 32, "SML2": format and its version
    4       4          4     schema hash, unsigned
    8       8          8     event time: the time that the values describe; signed, microseconds since 1970-01-01 UTC
    16      16         8     write time: when the value was written; the same unit
            24         4     writer: number of who wrote it, the CRC-32 of its name in UTF-8, unsigned
            28         4     zero
    24      32         ...   the columns in declared order

A column begins at the next offset that its item size divides and takes item size x items; zero bytes fill the gaps and
the end, to a multiple of 8. Items: bool 1 byte (0 or 1), i4 and i8 signed, f4 and f8 IEEE 754, timestamp as event
time. A vector ``f4[384]`` is its items in a row, a matrix is row by row. There is no null.

The schema hash is the CRC-32 (IEEE 802.3, as ``java.util.zip.CRC32``) of the UTF-8 text ``name:type`` of every column,
joined by line feeds, for example ``mean_delay:f4\\nlate_share:f4``. Defaults and the set's name are not part of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import numpy as np

from streamml.adapters.redis.keys import live_key, pointer_key
from streamml.batch.column import Array, ColumnType
from streamml.batch.frozen import frozen
from streamml.batch.microbatch import Int, Mask
from streamml.errors import ConfigError
from streamml.ports.feature_store import FeatureSchema
from streamml.topology.sentences import name_problem

_MAGIC: Final = {"loaded": b"SML1", "streaming": b"SML2"}
_HEADER_BYTES: Final = {"loaded": 24, "streaming": 32}
_ALIGNMENT: Final = 8
_HEADER: Final = (("stamp", "<u8", 0), ("event_time", "<i8", 8), ("write_time", "<i8", 16))
_KINDS: Final = ("bool", "i4", "i8", "f4", "f8", "timestamp")


def writer_number(name: str) -> int:
    """What stands in a value for the name of its writer."""
    return zlib.crc32(name.encode())


def schema_lines(schema: FeatureSchema) -> list[str]:
    """``name:type`` of every column, in stored order."""
    return [f"{name}:{_stored_type(declared)}" for name, declared in schema.columns]


def schema_from_lines(
    set_name: str, lines: Sequence[str], kind: Literal["loaded", "streaming"] = "loaded"
) -> FeatureSchema:
    """The schema that `schema_lines` wrote.

    Raises:
        ValueError: a line names no column type.
    """
    split = [line.rpartition(":") for line in lines]
    return FeatureSchema(set_name, tuple((name, ColumnType.parse(spelling)) for name, _, spelling in split), kind)


def _stored_type(declared: ColumnType) -> str:
    return str(ColumnType(declared.kind, declared.shape))


@frozen
class Decoded:
    """Values of ``n`` entities.

    Args:
        present: bool ``[n]``; whether there is a whole value of the schema.
        event_time: int64 ``[n]``, µs; 0 where not present.
        write_time: the same.
        columns: one array ``[n, *shape]`` per column, zeros where not present.
        corrupt: number of values that are there but not of this layout.
    """

    present: Mask
    event_time: Int
    write_time: Int
    columns: dict[str, Array]
    corrupt: int


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where the header and the columns of one schema lie in a value.

    Args:
        places: names of the columns, and of their fields in ``dtype``.
        stamp: format and schema hash, the first eight bytes of every value, as one number.
        pointer: key of the record that says which version is read; of a streaming set, that it was ever written.
    """

    schema: FeatureSchema
    dtype: np.dtype[Any]
    places: tuple[tuple[str, str], ...]
    schema_hash: int
    stamp: int
    pointer: bytes

    @staticmethod
    def of(schema: FeatureSchema) -> Layout:
        """Lay out a schema.

        Raises:
            ConfigError: its name or a column cannot be stored.
        """
        if problems := _problems(schema):
            raise ConfigError(problems)
        fields: list[tuple[str, np.dtype[Any]]] = []
        offsets: list[int] = []
        end = _HEADER_BYTES[schema.kind]
        for index, (_, declared) in enumerate(schema.columns):
            item = declared.dtype
            begin = _rounded_up(end, item.itemsize)
            end = begin + item.itemsize * int(np.prod(declared.shape, dtype=np.int64))
            fields.append((f"c{index}", np.dtype((item, declared.shape))))
            offsets.append(begin)
        header = _HEADER if schema.kind == "loaded" else (*_HEADER, ("writer", "<u4", 24))
        dtype = np.dtype(
            {
                "names": [*(name for name, _, _ in header), *(name for name, _ in fields)],
                "formats": [*(item for _, item, _ in header), *(item for _, item in fields)],
                "offsets": [*(offset for _, _, offset in header), *offsets],
                "itemsize": _rounded_up(end, _ALIGNMENT),
            }
        )
        places = tuple((name, place) for (name, _), (place, _) in zip(schema.columns, fields, strict=True))
        schema_hash = zlib.crc32("\n".join(schema_lines(schema)).encode())
        stamp = int.from_bytes(_MAGIC[schema.kind] + schema_hash.to_bytes(4, "little"), "little")
        streaming = schema.kind == "streaming"
        pointer = live_key(schema.name, _live_version(schema_hash)) if streaming else pointer_key(schema.name)
        return Layout(schema, dtype, places, schema_hash, stamp, pointer)

    @property
    def size(self) -> int:
        """Bytes of one value."""
        return self.dtype.itemsize

    @property
    def live_version(self) -> str:
        """The version of a streaming set that has this schema."""
        return _live_version(self.schema_hash)

    def encode(self, columns: Mapping[str, Array], event_time: Int, write_time: int, writer: int = 0) -> list[bytes]:
        """One value per row. The columns have the declared types and as many rows as ``event_time``.

        Args:
            writer: number of the writer; of a loaded set nobody's is stored.
        """
        rows = np.zeros(len(event_time), self.dtype)
        rows["stamp"], rows["event_time"], rows["write_time"] = self.stamp, event_time, write_time
        if self.schema.kind == "streaming":
            rows["writer"] = writer
        for name, place in self.places:
            rows[place] = columns[name]
        return cast("list[bytes]", rows.view(f"V{self.size}").tolist())

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Columns of all values; one that is ``None``, truncated or of another schema is not present.

        The columns are read-only views of one buffer.
        """
        return self.unpack(*self.packed(values))

    def packed(self, values: Sequence[bytes | None]) -> tuple[Array, int]:
        """The values as one structured array ``[n]``, zeros for one that is not present; and how many of them are corrupt."""
        absent = values.count(None)
        rows = self._rows(values, absent)
        present = rows["stamp"] == self.stamp
        corrupt = len(values) - absent - int(np.count_nonzero(present))
        if corrupt:
            rows = rows.copy()
            rows[~present] = np.zeros((), self.dtype)
        return rows, corrupt

    def unpack(self, rows: Array, corrupt: int = 0) -> Decoded:
        """Columns of rows that `packed` made; the rows are read-only from then on."""
        rows.setflags(write=False)
        columns = {name: rows[place] for name, place in self.places}
        present = rows["stamp"] == self.stamp
        return Decoded(present, rows["event_time"], rows["write_time"], columns, corrupt)

    def writer_of(self, value: bytes) -> int | None:
        """Number of the writer of a value that `decode` finds present; ``None`` of a loaded set."""
        return int(np.frombuffer(value, self.dtype)["writer"][0]) if self.schema.kind == "streaming" else None

    def _rows(self, values: Sequence[bytes | None], absent: int) -> Array:
        """The values as one structured array; zeros for one that is absent or of another length."""
        blank = bytes(self.size)
        filled = cast("Sequence[bytes]", values if not absent else [blank if v is None else v for v in values])
        # Every length counts, not their sum: two wrong lengths can add up to a right one.
        if not set(map(len, filled)) <= {self.size}:
            filled = [value if len(value) == self.size else blank for value in filled]
        return np.frombuffer(b"".join(filled), self.dtype)


def _live_version(schema_hash: int) -> str:
    return f"live-{schema_hash:08x}"


def _rounded_up(offset: int, to: int) -> int:
    return -(-offset // to) * to


def _problems(schema: FeatureSchema) -> list[str]:
    problems = [wrong] if (wrong := name_problem("Feature set", schema.name)) else []
    if not schema.columns:
        problems.append(f"Feature set {schema.name!r} has no columns; declare at least one.")
    names = [name for name, _ in schema.columns]
    for name, declared in schema.columns:
        column = f"Column {name!r} of feature set {schema.name!r}"
        if declared.kind not in _KINDS:
            problems.append(f"{column} has type {declared}; only {', '.join(_KINDS)} and vectors of them are stored.")
        if 0 in declared.shape:
            problems.append(f"{column} has shape {declared.shape}, which holds nothing.")
        if not name or "\n" in name:
            problems.append(f"{column} has no usable name: it is empty or holds a line feed.")
        if names.count(name) > 1:
            problems.append(f"{column} is declared {names.count(name)} times.")
    return list(dict.fromkeys(problems))
