"""Finds records with a repeated key, at any level, without a second parse of ordinary records.

The parsers used here keep the last of repeated keys silently. Every key costs two quotation marks, every text two more,
so a record with exactly as many as its decoded row needs repeats nothing and holds nothing unknown. Only the others
are looked at exactly: decoded without types and encoded again, which drops what was repeated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import attrgetter, is_not
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import UNSET

from streamml.adapters.codecs.json_structs import explain
from streamml.batch.microbatch import Int
from streamml.schema.field import Field

REPEATED: Final = "Record repeats a key."
_GROUP: Final = 256  # records joined at a time: buffers above 128 KiB are mapped and unmapped on every use
_QUOTE: Final = ord('"')
_ESCAPED: Final = re.compile(rb"\\(.)")
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


class QuoteFloor:
    """How many quotation marks a record needs at least, from the fields of its contract."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._least = _least(fields)
        varying = [field for field in fields if not field.required or (field.value.quoted and field.value.nullable)]
        self._varying = [(attrgetter(field.name), field) for field in varying]

    def suspects(self, records: Sequence[bytes], rows: Sequence[Any]) -> list[int]:
        """Indices of ``records`` that hold more than their decoded ``rows`` need.

        All others repeat no key, hold no unknown field and are valid UTF-8 throughout (every text was decoded).
        """
        total = sum(_quotes(group) for group in _joined(records))
        if total == self._least * len(rows):
            return []
        floors = self._floors(rows)
        if total == floors.sum():
            return []
        counts = np.fromiter(map(bytes.count, records, repeat(b'"')), np.int64, len(records))
        return np.flatnonzero(counts != floors).tolist()

    def _floors(self, rows: Sequence[Any]) -> Int:
        floors = np.full(len(rows), self._least, np.int64)
        for read, field in self._varying:
            values = list(map(read, rows))
            present = np.fromiter(map(is_not, values, repeat(UNSET)), np.bool_, len(rows))
            if not field.required:
                floors += 2 * present
            if field.value.quoted:
                floors += 2 * (present & np.fromiter(map(is_not, values, repeat(None)), np.bool_, len(rows)))
        return floors


def _least(fields: Iterable[Field]) -> int:
    required = [field.value for field in fields if field.required]
    texts = sum(2 for value in required if value.quoted and not value.nullable)
    return 2 * len(required) + texts + sum(_least(value.fields) for value in required if not value.nullable)


def flaws(records: Sequence[bytes]) -> dict[int, str]:
    """Why records that one of the parsers accepted are refused after all (repeated key, not UTF-8), by index. Exact."""
    found: dict[int, str] = {}
    for start in range(0, len(records), _GROUP):
        group = records[start : start + _GROUP]
        if not _flawless(group):
            found |= {start + index: flaw for index, flaw in enumerate(map(_flaw, group)) if flaw is not None}
    return found


def not_utf8(records: Sequence[bytes]) -> dict[int, str]:
    """Why records are refused that are not valid UTF-8 outside the decoded fields, by index."""
    if all(group.isascii() for group in _joined(records)):
        return {}
    return {index: flaw for index, flaw in enumerate(map(_undecodable, records)) if flaw is not None}


def _joined(records: Sequence[bytes]) -> Iterable[bytes]:
    return (b"".join(records[start : start + _GROUP]) for start in range(0, len(records), _GROUP))


def _quotes(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == _QUOTE))


def _unescaped_quotes(text: bytes) -> int:
    """Quotation marks that open or close a text of ``text``, which is valid JSON."""
    escaped = _ESCAPED.findall(text).count(b'"') if b"\\" in text else 0
    return _quotes(text) - escaped


def _flawless(records: Sequence[bytes]) -> bool:
    # dropping repeated keys can only lower a record's count, so equal sums mean that no record had any
    try:
        return _unescaped_quotes(b"".join(records)) == _unescaped_quotes(_encode(list(map(_decode, records))))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def _flaw(record: bytes) -> str | None:
    try:
        return None if _unescaped_quotes(record) == _unescaped_quotes(_encode(_decode(record))) else REPEATED
    except (UnicodeError, RecursionError) as error:
        return explain(error)
    except (msgspec.MsgspecError, ValueError):  # a number that msgspec does not hold, in a field that nobody declared
        return _flaw_of_pairs(record)


def _undecodable(record: bytes) -> str | None:
    try:
        record.decode()
    except UnicodeDecodeError as error:
        return explain(error)
    return None


class _Repeated(Exception):
    """Raised out of the parser at the first repeated key."""


def _once(pairs: list[tuple[str, object]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise _Repeated


_pairs: Final = json.JSONDecoder(object_pairs_hook=_once, parse_int=str, parse_float=str)


def _flaw_of_pairs(record: bytes) -> str | None:
    try:
        _pairs.decode(record.decode())
    except _Repeated:
        return REPEATED
    except (ValueError, RecursionError) as error:
        return explain(error)
    return None
