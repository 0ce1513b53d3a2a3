"""Feature values in Parquet and CSV files, read as batches of numpy columns with bounded memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from streamml.batch.column import Array, ColumnType
from streamml.batch.microbatch import Mask
from streamml.errors import ConfigError
from streamml.ports.feature_store import FeatureSchema

Arrow = Any
_ROWS_PER_BATCH: Final = 32768
_BYTES_PER_BATCH: Final = 1 << 26
_CSV_BLOCK_BYTES: Final = 1 << 22
_PROBLEMS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class FileColumns:
    """What is read of a file.

    Args:
        schema: the set and its columns.
        key: columns that name the entity.
        event_time: column with the time that a row describes.
    """

    schema: FeatureSchema
    key: tuple[str, ...]
    event_time: str

    @property
    def names(self) -> list[str]:
        """Every column that is read, once."""
        return list(dict.fromkeys((*self.key, self.event_time, *(name for name, _ in self.schema.columns))))


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """An open file whose columns fit.

    Args:
        rows: how many it has; ``None``: not known before the end.
        batches: reads it, once, as columns of one length by name: key columns as text, the event time as
            ``datetime64``, feature columns as numbers. Raises `ConfigError` where it cannot be read.
    """

    rows: int | None
    batches: Callable[[], Iterator[dict[str, Array]]]


@contextmanager
def open_feature_file(path: Path, wanted: FileColumns) -> Iterator[FeatureFile]:
    """Open a ``.parquet``, ``.csv`` or ``.csv.gz`` file and check its columns.

    Raises:
        ConfigError: pyarrow is not installed, the file cannot be read, or columns are missing or of other types; all
            problems at once.
    """
    _require_pyarrow()
    name = path.name.lower()
    if name.endswith((".parquet", ".pq")):
        opened = _open_parquet
    elif name.endswith((".csv", ".csv.gz")):
        opened = _open_csv
    else:
        raise ConfigError(f"{path} is neither Parquet (.parquet) nor CSV (.csv, .csv.gz); convert it, or rename it.")
    with _translated(path):
        source, schema, rows, records = opened(path, wanted)
    try:
        if problems := _type_problems(path, wanted, schema):
            raise ConfigError(problems)
        yield FeatureFile(rows, lambda: _numpy_batches(path, wanted, records))
    finally:
        source.close()


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ConfigError("Reading Parquet and CSV needs pyarrow: pip install streamml[parquet]") from None


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Errors of reading as a sentence with the file's name."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _open_parquet(path: Path, wanted: FileColumns) -> tuple[Arrow, Arrow, int | None, Iterator[Arrow]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    schema = file.schema_arrow
    present = [name for name in wanted.names if name in schema.names]
    row_bytes = sum(declared.dtype.itemsize * prod(declared.shape) for _, declared in wanted.schema.columns)
    rows = max(1, min(_ROWS_PER_BATCH, _BYTES_PER_BATCH // max(row_bytes, 1)))
    return file, schema, file.metadata.num_rows, file.iter_batches(batch_size=rows, columns=present)


def _open_csv(path: Path, wanted: FileColumns) -> tuple[Arrow, Arrow, int | None, Iterator[Arrow]]:
    """Key columns are text as written; feature columns have the widest type of their kind, so that what does not fit
    is found by its row instead of being cut."""
    import pyarrow as pa
    from pyarrow import csv

    block = csv.ReadOptions(block_size=_CSV_BLOCK_BYTES)
    with csv.open_csv(path, read_options=block) as header:
        names = header.schema.names
    if problems := _missing(path, wanted, names) + _vectors(path, wanted):
        raise ConfigError(problems)
    numbers = {"bool": pa.bool_(), "i4": pa.int64(), "i8": pa.int64(), "f4": pa.float64(), "f8": pa.float64()}
    types = dict.fromkeys(wanted.key, pa.string())
    if wanted.event_time in types:
        types[wanted.event_time] = pa.date32()
    types |= {name: numbers[declared.kind] for name, declared in wanted.schema.columns if declared.kind in numbers}
    convert = csv.ConvertOptions(column_types=types, include_columns=wanted.names)
    with _columns_by_name(path, names):
        reader = csv.open_csv(path, read_options=block, convert_options=convert)
    return reader, reader.schema, None, _csv_batches(path, names, reader)


def _csv_batches(path: Path, names: list[str], reader: Arrow) -> Iterator[Arrow]:
    with _columns_by_name(path, names):
        yield from reader


@contextmanager
def _columns_by_name(path: Path, names: list[str]) -> Iterator[None]:
    """What pyarrow says of a column it names by number, counted from 0."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as error:
        told = re.sub(r"CSV column #(\d+)", lambda found: f"column {names[int(found[1])]!r}", str(error))
        raise ConfigError(f"{path} cannot be read: {told}") from error


def _missing(path: Path, wanted: FileColumns, names: list[str]) -> list[str]:
    absent = [name for name in wanted.names if name not in names]
    return [f"{path} has no column {name!r}; it has {', '.join(map(repr, names))}." for name in absent]


def _vectors(path: Path, wanted: FileColumns) -> list[str]:
    return [
        f"Column {name!r} is a vector, {declared}, which CSV cannot hold; write {path.stem} as Parquet."
        for name, declared in wanted.schema.columns
        if declared.shape
    ]


def _type_problems(path: Path, wanted: FileColumns, schema: Arrow) -> list[str]:
    """Every column that is missing, ambiguous or of a type that does not fit."""
    problems = _missing(path, wanted, schema.names)
    twice = [name for name in wanted.names if schema.names.count(name) > 1]
    problems += [f"{path} has several columns {name!r}; rename all but one." for name in twice]
    found = {name: schema.field(name).type for name in wanted.names if schema.names.count(name) == 1}
    for name, declared in wanted.schema.columns:
        if name in found and not _fits(found[name], declared):
            problems.append(f"Column {name!r} of {path} has type {found[name]} instead of {declared}.")
    for name in wanted.key:
        if name in found and _kind(found[name]) not in ("text", "i", "u", "date"):
            problems.append(f"Key column {name!r} of {path} has type {found[name]}; write text, integers or dates.")
    event_time = found.get(wanted.event_time)
    if event_time is not None and _kind(event_time) not in ("timestamp", "date"):
        problems.append(f"Event time {wanted.event_time!r} of {path} has type {event_time}; write timestamps or dates.")
    return problems


def _kind(arrow: Arrow) -> str | None:
    """``b``, ``i``, ``u``, ``f`` as numpy's kinds; ``text``, ``timestamp``, ``date``, ``list``; ``None``: no use for it."""
    from pyarrow import types

    if types.is_dictionary(arrow):
        return _kind(arrow.value_type)
    checks: tuple[tuple[str, tuple[Callable[[Arrow], bool], ...]], ...] = (
        ("b", (types.is_boolean,)),
        ("i", (types.is_signed_integer,)),
        ("u", (types.is_unsigned_integer,)),
        ("f", (types.is_floating,)),
        ("text", (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)),
        ("timestamp", (types.is_timestamp,)),
        ("date", (types.is_date,)),
        ("list", (types.is_list, types.is_large_list, types.is_fixed_size_list)),
    )
    return next((kind for kind, tests in checks if any(test(arrow) for test in tests)), None)


def _fits(arrow: Arrow, declared: ColumnType) -> bool:
    if declared.shape:
        return _kind(arrow) == "list" and _fits(arrow.value_type, ColumnType(declared.kind))
    if declared.kind == "timestamp":
        return _kind(arrow) in ("timestamp", "date")
    kind = _kind(arrow)
    return kind == declared.dtype.kind or (kind in ("b", "i", "u") and declared.kind in ("i4", "i8", "f4", "f8"))


def _numpy_batches(path: Path, wanted: FileColumns, records: Iterator[Arrow]) -> Iterator[dict[str, Array]]:
    first_row = 1
    while True:
        with _translated(path):
            batch = next(records, None)
        if batch is None:
            return
        yield _numpy_columns(path, batch, wanted, first_row)
        first_row += batch.num_rows


def _numpy_columns(path: Path, batch: Arrow, wanted: FileColumns, first_row: int) -> dict[str, Array]:
    """Columns of one batch. A column that serves as key and as something else keeps its number or date."""
    problems = [
        problem
        for name, declared in wanted.schema.columns
        if declared.shape
        for problem in _length_problems(name, batch.column(name), declared, first_row)
    ]
    if problems:
        raise ConfigError([f"{path.name}: {problem}" for problem in problems[:_PROBLEMS_SHOWN]])
    columns = {name: _texts(batch.column(name)) for name in wanted.key}
    columns[wanted.event_time] = _times(batch.column(wanted.event_time), as_key=wanted.event_time in wanted.key)
    for name, declared in wanted.schema.columns:
        columns[name] = _vector(batch.column(name), declared) if declared.shape else _numbers(batch.column(name))
    return columns


def _texts(column: Arrow) -> Array:
    """Text as UTF-8 in an object array, ``None`` for null."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        if pa.types.is_date64(column.type):
            column = column.cast(pa.date32())
        column = column.cast(pa.string()).cast(pa.binary())
    texts: Array = column.to_numpy(zero_copy_only=False)
    return texts.astype(object)


def _times(column: Arrow, *, as_key: bool) -> Array:
    import pyarrow as pa

    unit = pa.date32() if as_key else pa.timestamp("us")
    times: Array = column.cast(unit, safe=False).to_numpy(zero_copy_only=False)
    return times


def _numbers(column: Arrow) -> Array:
    """Numbers or times; masked where null."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _kind(column.type) in ("timestamp", "date"):
        return _times(column, as_key=False)
    if not column.null_count:
        data: Array = column.to_numpy(zero_copy_only=False)
        return data
    null: Mask = column.is_null().to_numpy(zero_copy_only=False)
    filled = column.fill_null(False if pa.types.is_boolean(column.type) else 0)
    return np.ma.MaskedArray(filled.to_numpy(zero_copy_only=False), mask=null)


def _length_problems(name: str, column: Arrow, declared: ColumnType, first_row: int) -> list[str]:
    import pyarrow.compute as pc

    wanted = prod(declared.shape)
    lengths = pc.list_value_length(column).fill_null(wanted).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != wanted)[:_PROBLEMS_SHOWN].tolist()
    return [f"Row {first_row + row}: column {name!r} has {lengths[row]} values instead of {wanted}." for row in wrong]


def _vector(column: Arrow, declared: ColumnType) -> Array:
    """One vector per row; masked where the vector or one of its values is null."""
    null: Mask = column.is_null().to_numpy(zero_copy_only=False)
    items = _numbers(column.drop_null().flatten())
    vectors = np.ma.getdata(items).reshape(-1, *declared.shape)
    mask = np.ma.getmaskarray(items).reshape(vectors.shape)
    if not null.any() and not mask.any():
        return vectors
    data = np.zeros((len(null), *declared.shape), vectors.dtype)
    masked = np.ones(data.shape, np.bool_)
    data[~null], masked[~null] = vectors, mask
    return np.ma.MaskedArray(data, mask=masked)
