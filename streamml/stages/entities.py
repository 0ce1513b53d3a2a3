"""Whom the rows of a batch are about: each entity once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from streamml.batch.column import Array
from streamml.batch.frozen import frozen
from streamml.batch.microbatch import Int, Mask, MicroBatch

_EACH: Final = slice(None)


@frozen
class Entities:
    """The distinct entities of a batch of ``rows``, and which row is about which.

    Args:
        keys: their parts as bytes.
        index: int64 ``[rows]``, place of each row's entity among the distinct ones; a slice where every row has its own.
        absent: bool ``[rows]``, rows about no entity; ``None`` where there are none.
    """

    keys: list[tuple[bytes, ...]]
    rows: int
    index: Int | slice
    absent: Mask | None


def entities_of(batch: MicroBatch, key: tuple[str, ...]) -> Entities:
    """Keys without repetition. A row with a null in its key is about no entity."""
    columns = [batch.columns[name] for name in key]
    absent = _null_in_any(columns)
    if absent is not None:
        columns = [np.ma.getdata(column)[~absent] for column in columns]
    values: list[Any] = (
        columns[0].tolist() if len(columns) == 1 else list(zip(*map(np.ndarray.tolist, columns), strict=True))
    )
    distinct: list[Any] = list(dict.fromkeys(values))
    index = _EACH if len(distinct) == len(batch) else _places(values, distinct, absent)
    parts: list[Any] = [distinct] if len(columns) == 1 else list(zip(*distinct, strict=True))
    keys = list(zip(*(_key_bytes(part) for part in parts), strict=True))
    return Entities(keys, len(batch), index, absent)


def _places(values: Sequence[Any], distinct: Sequence[Any], absent: Mask | None) -> Int:
    """Place of each row's value among the distinct ones; 0 for rows without a value."""
    place_of = {value: place for place, value in enumerate(distinct)}
    places = np.fromiter(map(place_of.__getitem__, values), np.int64, len(values))
    if absent is None:
        return places
    whole = np.zeros(len(absent), np.int64)
    whole[~absent] = places
    return whole


def _null_in_any(columns: list[Array]) -> Mask | None:
    masks = [np.ma.getmaskarray(column) for column in columns if isinstance(column, np.ma.MaskedArray)]
    absent = np.logical_or.reduce(masks) if masks else None
    return absent if absent is not None and absent.any() else None


def _key_bytes(part: Sequence[Any]) -> list[bytes]:
    """Key parts as they are stored: text as UTF-8, integers in decimal, bytes as they are."""
    if not part or isinstance(part[0], str):
        return list(map(str.encode, part))
    return list(part) if isinstance(part[0], bytes) else list(map(b"%d".__mod__, part))
