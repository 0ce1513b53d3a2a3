"""Rows on their way into the store: are they fit to be stored, and what are their keys. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from streamml.batch.column import Array, ColumnType, no_unicode, problem_with
from streamml.batch.microbatch import Int, Mask
from streamml.ports.feature_store import FeatureSchema


@dataclass(frozen=True, slots=True)
class Rows:
    """What of one batch is stored.

    Args:
        parts: one list per key column, a part per row.
        columns: the feature columns in their declared types.
        event_time: int64 ``[n]``, µs since 1970 UTC.
    """

    parts: list[list[bytes]]
    columns: dict[str, Array]
    event_time: Int


def checked_rows(
    batch: Mapping[str, Array], schema: FeatureSchema, key: Sequence[str], event_time: str, first_row: int, limit: int
) -> Rows | list[str]:
    """The rows of ``batch``, or what is wrong with them: at most ``limit`` sentences, rows numbered from ``first_row``."""
    if problems := _shape_problems(batch, schema, key, event_time):
        return problems[:limit]
    try:
        parts = {name: key_parts(batch[name]) for name in key}
    except UnicodeEncodeError:
        broken = [(f"key column {name!r} is not valid Unicode", no_unicode(np.ma.getdata(batch[name]))) for name in key]
        return _sentences(broken, first_row, limit)
    wrong = [(f"key column {name!r} is empty", np.fromiter(map(len, parts[name]), np.int64) == 0) for name in key]
    columns: dict[str, Array] = {}
    for name, declared in schema.columns:
        columns[name], found = _stored(batch[name], declared)
        wrong += [(f"column {name!r} {what}", rows) for what, rows in found]
    times = batch[event_time]
    wrong.append((f"event time {event_time!r} is null", _null(times)))
    wrong.append((f"event time {event_time!r} is not of the years 1 to 9999", _off_calendar(times)))
    if any(rows.any() for _, rows in wrong):
        return _sentences(wrong, first_row, limit)
    return Rows([parts[name] for name in key], columns, times.astype("M8[us]").view(np.int64))


def key_parts(column: Array) -> list[bytes]:
    """Text of every key part: integers in decimal, dates in ISO form; ``b""`` for null.

    Raises:
        UnicodeEncodeError: a text has a lone surrogate.
    """
    null = _null(column).tolist()
    data = np.ma.getdata(column)
    if data.dtype.kind in "iu":
        texts = [b"%d" % number for number in data.tolist()]
    elif data.dtype.kind == "M":
        texts = [text.encode() for text in np.datetime_as_string(data).tolist()]
    else:
        values = data.tolist()
        if set(map(type, values)) == {bytes}:
            return cast("list[bytes]", values)
        texts = [value.encode() if isinstance(value, str) else value for value in values]
    return [b"" if absent else text for text, absent in zip(texts, null, strict=True)]


def _shape_problems(
    batch: Mapping[str, Array], schema: FeatureSchema, key: Sequence[str], event_time: str
) -> list[str]:
    wanted = [*key, event_time, *(name for name, _ in schema.columns)]
    if absent := [name for name in dict.fromkeys(wanted) if name not in batch]:
        return [f"Column {name!r} is missing; there are {', '.join(map(repr, batch)) or 'none'}." for name in absent]
    if flat := [name for name in (*key, event_time) if batch[name].ndim != 1]:
        return [f"Column {name!r} has shape {batch[name].shape}; give one value for each row." for name in flat]
    rows = len(batch[event_time])
    problems = [
        f"Column {name!r} {what}."
        for name, declared in schema.columns
        if (what := problem_with(batch[name], declared, rows)) is not None
    ]
    problems += [
        f"Key column {name!r} has {len(batch[name])} rows instead of {rows}."
        for name in key
        if len(batch[name]) != rows
    ]
    problems += [
        f"Key column {name!r} has type {batch[name].dtype}; a key is text, bytes, an integer or a date."
        for name in key
        if not _can_be_key(batch[name])
    ]
    if batch[event_time].dtype.kind != "M":
        problems.append(f"Event time {event_time!r} has type {batch[event_time].dtype} instead of datetime64.")
    problems += [
        f"Column {name!r} has times without a unit; write datetime64[us]." for name in wanted if _unitless(batch[name])
    ]
    return problems


def _unitless(column: Array) -> bool:
    return column.dtype.kind == "M" and np.datetime_data(column.dtype)[0] == "generic"


def _can_be_key(column: Array) -> bool:
    if column.dtype.kind != "O":
        return column.dtype.kind in "iu" or column.dtype == np.dtype("M8[D]")
    return set(map(type, np.ma.getdata(column).tolist())) <= {bytes, str, type(None)}


def _stored(column: Array, declared: ColumnType) -> tuple[Array, list[tuple[str, Mask]]]:
    """The column in its stored type, and per kind of problem the rows that have it."""
    null = _null(column)
    data = np.ma.getdata(column)
    with np.errstate(over="ignore", invalid="ignore"):
        stored = data.astype(declared.dtype)
    found = [("is null", null)]
    if declared.kind in ("f4", "f8"):
        source_finite = np.isfinite(data)
        found.append(("is not finite", _any_item(~source_finite) & ~null))
        found.append((f"does not fit into {declared.kind}", _any_item(source_finite & ~np.isfinite(stored)) & ~null))
    elif declared.kind in ("i4", "i8"):
        fits = np.iinfo(declared.dtype)
        found.append((f"does not fit into {declared.kind}", _any_item((data < fits.min) | (data > fits.max)) & ~null))
    elif declared.kind == "timestamp":
        found.append(("is not of the years 1 to 9999", _off_calendar(column)))
    return stored, found


def _off_calendar(times: Array) -> Mask:
    """Rows with a time that is none in microseconds, or of no datetime: in coarser units numpy wraps it round without a word."""
    years = np.ma.getdata(times).astype("M8[Y]").astype(np.int64) + 1970
    return _any_item((years < 1) | (years > 9999)) & ~_null(times)


def _null(column: Array) -> Mask:
    null = _any_item(np.ma.getmaskarray(column))
    data = np.ma.getdata(column)
    if data.dtype.kind == "M":
        null |= _any_item(np.isnat(data))
    elif data.dtype.kind == "O":
        null |= np.fromiter((value is None for value in data.flat), np.bool_, data.size).reshape(data.shape)
    return null


def _any_item(mask: Mask) -> Mask:
    """Whether any item of a row's vector is marked."""
    return np.logical_or.reduce(mask, axis=tuple(range(1, mask.ndim))) if mask.ndim > 1 else mask


def _sentences(wrong: list[tuple[str, Mask]], first_row: int, limit: int) -> list[str]:
    """The problems in the order of rows."""
    found = [(int(row), what) for what, rows in wrong for row in np.flatnonzero(rows)[:limit]]
    return [f"Row {first_row + row}: {what}." for row, what in sorted(found, key=lambda item: item[0])[:limit]]
