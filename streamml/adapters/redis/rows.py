"""Rows on their way into the store: are they fit to be stored, and what are their keys. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from streamml.batch.column import Array, ColumnType, no_unicode, object_array, problem_with
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
    if any(rows.any() for _, rows in wrong):
        return _sentences(wrong, first_row, limit)
    return Rows([parts[name] for name in key], columns, times.astype("M8[us]").view(np.int64))


def as_column(values: npt.NDArray[Any] | Sequence[Any], is_key: bool) -> Array:
    """What `checked_rows` takes, of an array, or of Python objects of which ``None`` is null; text is for keys only."""
    if isinstance(values, np.ndarray):
        return values.astype(object) if values.dtype.kind in "US" else values
    listed = list(values)
    there = [one for one in listed if one is not None]
    if is_key and (not there or any(isinstance(one, (str, bytes)) for one in there)):
        return object_array(listed, len(listed))
    if there and all(isinstance(one, date) for one in there):
        unit = "M8[us]" if any(isinstance(one, datetime) for one in there) else "M8[D]"
        return np.array([in_utc(one) if isinstance(one, datetime) else one for one in listed], unit)
    return _masked(listed, there[0] if there else 0.0)


def in_utc(moment: datetime) -> datetime:
    """The same moment without a zone; one that has none is UTC already."""
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _masked(listed: list[Any], filler: Any) -> Array:
    """An array in which ``None`` is masked: as an object it would hide which rows are wrong."""
    filled = [filler if one is None else one for one in listed]
    try:
        data = np.asarray(filled)
    except ValueError:
        # Vectors of several lengths.
        data = object_array(filled, len(filled))
    null = np.array([one is None for one in listed], np.bool_)
    if not null.any():
        return data
    return np.ma.MaskedArray(data, np.broadcast_to(null.reshape(-1, *(1,) * (data.ndim - 1)), data.shape))


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
    return problems


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
    return stored, found


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
