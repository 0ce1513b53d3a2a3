"""Decoded rows to columns: loops in C, and only for the columns that somebody reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain, repeat
from operator import attrgetter, is_not, itemgetter, sub
from typing import Any, Final

import numpy as np
from msgspec import UNSET, Struct
from msgspec.structs import astuple

from streamml.adapters.codecs.json_structs import default_maker
from streamml.batch.column import Array, ColumnType, sealed
from streamml.errors import ConfigError
from streamml.schema.field import Field

Adapt = Callable[[Iterable[Any]], Iterable[Any]]
Build = Callable[[Iterable[Any], int], Array]
ColumnReader = Callable[[Sequence[Any]], Array]
Transpose = Callable[[Sequence[Any]], Iterable[Sequence[Any]]]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS, _SECONDS, _MICROSECONDS = (attrgetter(name) for name in ("days", "seconds", "microseconds"))


def column_reader(field: Field, adapt: Adapt | None = None) -> ColumnReader:
    """A function from values to the column of ``field``: ``[n, *shape]``, read-only, masked where the field is nullable.

    Args:
        field: its value is `UNSET` where the record had none.
        adapt: turns the values (never null) into those of the column.
    """
    declared, filled = field.column, _filler(field)
    build = _builder(declared)

    def column(values: Sequence[Any]) -> Array:
        if not field.required:
            values = filled(values)
        if declared.nullable:
            return sealed(_masked(values, declared, build, adapt))
        return sealed(build(adapt(values) if adapt else values, len(values)))

    return column


def transposer(names: Sequence[str], record: type[Struct] | None = None) -> Transpose:
    """A function from ``n`` rows to the values of their attributes ``names``: one sequence ``[n]`` for each.

    Args:
        record: what the rows are, if that is a struct.
    """
    if not names:
        return lambda rows: []
    read = attrgetter(*names)
    if len(names) == 1:
        return lambda rows: [list(map(read, rows))]
    fields = record.__struct_fields__ if record is not None else ()
    if len(fields) > 2 * len(names) or not fields:
        return lambda rows: zip(*map(read, rows), strict=True) if rows else [()] * len(names)
    # A struct gives all of its fields for less than half of them one by one.
    pick = itemgetter(*map(fields.index, names))
    return lambda rows: pick(list(zip(*map(astuple, rows), strict=True))) if rows else [()] * len(names)


def check_default(field: Field, reader: ColumnReader) -> None:
    """Build the column of a record that lacks the field.

    Raises:
        ConfigError: its default is not of its type.
    """
    try:
        reader([UNSET])
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"The default of `{field.name}` is no {field.column}; give it one that is.") from error


def _filler(field: Field) -> Callable[[Iterable[Any]], list[Any]]:
    if field.default_factory is not None or field.column.kind == "object":
        make = default_maker(field)
        return lambda values: [make() if value is UNSET else value for value in values]
    default = getattr(field.default, "value", field.default) if field.value.kind == "choice" else field.default
    return lambda values: [default if value is UNSET else value for value in values]


def _masked(values: Sequence[Any], declared: ColumnType, build: Build, adapt: Adapt | None) -> Array:
    present = np.fromiter(map(is_not, values, repeat(None)), np.bool_, len(values))
    held: list[Any] = [value for value in values if value is not None]
    dense = build(adapt(held) if adapt else held, len(held))
    data = np.full((len(values), *declared.shape), None if dense.dtype == object else 0, dense.dtype)
    data[present] = dense
    absent = ~present.reshape(-1, *(1 for _ in declared.shape))
    return np.ma.MaskedArray(data, mask=np.broadcast_to(absent, data.shape).copy())


def _builder(declared: ColumnType) -> Build:
    """A function from values, none of them null, and their number to a column."""
    shape, dtype = declared.shape, declared.dtype
    if shape:
        return lambda values, count: np.fromiter(chain.from_iterable(values), dtype).reshape(count, *shape)
    return _timestamps if declared.kind == "timestamp" else lambda values, count: np.fromiter(values, dtype, count)


def _timestamps(moments: Iterable[datetime], count: int) -> Array:
    values = list(moments)
    try:
        gaps = list(map(sub, values, repeat(EPOCH)))
    except TypeError:  # a naive one is UTC
        gaps = [(value if value.tzinfo else value.replace(tzinfo=UTC)) - EPOCH for value in values]
    days, seconds, microseconds = (
        np.fromiter(map(part, gaps), np.int64, count) for part in (_DAYS, _SECONDS, _MICROSECONDS)
    )
    # whole numbers: a float of seconds loses the microseconds of far dates
    return ((days * 86_400 + seconds) * 1_000_000 + microseconds).view("M8[us]")
