"""An export read back as a topology's own functions get it, so that training computes inputs by the code that serving does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamml.batch.column import Array, ColumnType
from streamml.errors import ConfigError
from streamml.ops.export.manifest import finished
from streamml.ops.export.staging import event_columns
from streamml.topology.topology import Topology

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of an export.

    Args:
        columns: event and feature columns by the names that steps know, as numpy arrays ``[n, ...]``; object columns are JSON text.
        scored: bool ``[n]``, rows whose features were recorded.
        table: everything that is in the file, see docs/guide/training-data.md.
    """

    columns: Mapping[str, Array]
    scored: Array
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)


def read_export(folder: Path, topology: Topology) -> Iterator[Rows]:
    """The rows of an export, as many at a time as one row group of a file has (20,000 at most).

    Raises:
        ConfigError: the folder has no finished export, or one of other columns.
    """
    import pyarrow.parquet as pq

    files = finished(folder)
    events, features = event_columns(topology.source), topology.feature_columns
    named = {f"event.{name}": (name, kind) for name, kind in events.items()}
    named |= {f"feature.{name}": (name, kind) for name, kind in features.items()}
    for path in files:
        with pq.ParquetFile(path) as file:
            missing = sorted(named.keys() - set(file.schema_arrow.names))
            if missing:
                raise ConfigError(f"{path} has no column {', '.join(missing)}; it is the export of another topology.")
            for group in range(file.num_row_groups):
                yield _rows(file.read_row_group(group), named)


def _rows(table: pa.Table, named: Mapping[str, tuple[str, ColumnType]]) -> Rows:
    columns = {name: _column(table.column(stored), kind) for stored, (name, kind) in named.items()}
    logged = [stored for stored in named if stored.startswith("feature.")]
    scored = np.asarray(table.column(logged[0]).is_valid()) if logged else np.ones(table.num_rows, bool)
    return Rows(columns, scored, table)


def _column(stored: Any, kind: ColumnType) -> Array:
    """A column as a step has it; where there is a null and the type has none, it is zero, or empty."""
    whole = stored.combine_chunks()
    mask = np.asarray(whole.is_null())
    if kind.shape:
        width = int(np.prod(kind.shape))
        values: Array = np.zeros((len(whole), width), kind.dtype)
        flat = np.asarray(whole.drop_null().flatten(), kind.dtype)
        values[~mask] = flat.reshape(-1, width)
        values = values.reshape(len(whole), *kind.shape)
    elif kind.dtype == object:
        values = np.array(whole.to_pylist(), object)
    else:
        values = np.zeros(len(whole), kind.dtype)
        values[~mask] = np.asarray(whole.drop_null())
    if not kind.nullable:
        return values
    wide = np.broadcast_to(mask.reshape(-1, *(1 for _ in kind.shape)), values.shape)
    return np.ma.MaskedArray(values, mask=wide.copy())
