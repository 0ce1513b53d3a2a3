"""Columns as Arrow arrays, and tables as Parquet files that are whole or not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from streamml.batch.column import Array, ColumnType

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_SCALARS: Final = {"bool": "bool_", "i4": "int32", "i8": "int64", "f4": "float32", "f8": "float64"}


def arrow_type(declared: ColumnType) -> pa.DataType:
    """What a column is in a file: numbers as they are, times in µs UTC without a zone, vectors as lists of one length (matrices
    row by row), objects as JSON text."""
    import pyarrow as pa

    if declared.kind == "bytes":
        found = pa.binary()
    elif declared.kind in ("text", "object"):
        found = pa.string()
    else:
        found = pa.timestamp("us") if declared.kind == "timestamp" else getattr(pa, _SCALARS[declared.kind])()
    return pa.list_(found, int(np.prod(declared.shape))) if declared.shape else found


def arrow_column(column: Array, declared: ColumnType) -> pa.Array:
    """``n`` values; masked ones are nulls."""
    import pyarrow as pa

    kind, mask = arrow_type(declared), None
    if isinstance(column, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(column).reshape(len(column), -1).any(axis=1)
    values = np.ma.getdata(column)
    if declared.shape:
        flat = pa.array(np.ascontiguousarray(values, declared.dtype).reshape(-1), kind.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=None if mask is None else pa.array(mask))
    if values.dtype == object:
        held = [_plain(value, declared.kind) for value in values.tolist()]
        return pa.array(held, kind, mask=mask)
    return pa.array(np.ascontiguousarray(values), kind, mask=mask)


def _plain(value: Any, kind: str) -> Any:
    if value is None or kind == "bytes":
        return value
    if kind == "object":
        import msgspec

        return msgspec.json.encode(value).decode()
    # Text may hold half of a surrogate pair, for which no file has a place.
    return str(value).encode(errors="replace").decode()


def schema_of(columns: Mapping[str, ColumnType | str]) -> pa.Schema:
    """Names and types of a table; a type may be the name of one of Arrow's."""
    import pyarrow as pa

    return pa.schema(
        [
            (name, pa.type_for_alias(kind) if isinstance(kind, str) else arrow_type(kind))
            for name, kind in columns.items()
        ]
    )


@contextmanager
def parquet_file(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A file that is there when the block has ended, and not before."""
    import pyarrow.parquet as pq

    partial = path.with_name(f"{path.name}.partial")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        yield writer
    partial.replace(path)
