"""What a caller hands over to be written, as columns. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from streamml.batch.column import Array, object_array


def as_column(values: object, dtype: np.dtype[Any], shape: tuple[int, ...] = ()) -> Array:
    """An array as it is, but for numpy's own texts; a sequence as the array of what it holds, ``None`` masked.

    Whether it holds what it should is not asked here. What lies at ``None`` is of ``dtype``, and an empty sequence too.

    Args:
        dtype: of what is wanted; of a key, object.
        shape: of one row's value.

    Raises:
        ValueError: this is no column, or a time that no calendar has; the message goes on after the column's name.
    """
    if isinstance(values, np.ndarray):
        return values.astype(object) if values.dtype.kind in "US" else values
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        # One kind of error for all that makes it none.
        raise ValueError(f"is {values!r:.50}; give a numpy array, or a sequence with a value for each row")  # noqa: TRY004
    listed = list(values)
    known = [one for one in listed if one is not None]
    if not known:
        return np.ma.masked_all((len(listed), *shape), dtype)  # type: ignore[no-untyped-call, no-any-return]
    if len(known) == len(listed):
        return _array(known, dtype)
    found = np.ma.masked_all((len(listed), *(filled := _array(known, dtype)).shape[1:]), filled.dtype)  # type: ignore[no-untyped-call]
    found[[one is not None for one in listed]] = filled
    return found  # type: ignore[no-any-return]


def _array(known: list[Any], dtype: np.dtype[Any]) -> Array:
    if all(isinstance(one, date) for one in known):
        unit = "M8[us]" if any(isinstance(one, datetime) for one in known) else "M8[D]"
        return np.array([_utc(one) if isinstance(one, datetime) else one for one in known], unit)
    if dtype == np.dtype(object) and not all(isinstance(one, (int, np.integer, np.datetime64)) for one in known):
        return object_array(known, len(known))
    try:
        return np.asarray(known)
    except ValueError:
        return object_array(known, len(known))


def _utc(moment: datetime) -> datetime | None:
    if moment != moment:  # noqa: PLR0124  pandas' NaT is a datetime, and the only one that is not itself
        return None
    try:
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise ValueError(f"has the time {moment}, which is none of the years 1 to 9999 in UTC") from None
