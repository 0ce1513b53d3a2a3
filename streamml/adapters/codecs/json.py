"""JSON records to columns, one record at a time; `json_encoder` goes the other way.

Records are never joined before they are parsed: a crafted one could end early and open rows of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import msgspec
import numpy as np
from pydantic import BaseModel

from streamml.adapters.codecs.json_columns import ColumnReader, Transpose, check_default, column_reader, transposer
from streamml.adapters.codecs.json_duplicates import QuoteFloor, flaws, not_utf8
from streamml.adapters.codecs.json_encode import json_encoder
from streamml.adapters.codecs.json_structs import INT64, Unholdable, attempt, explain, explain_pydantic, record_type
from streamml.batch.column import Array
from streamml.batch.microbatch import Int
from streamml.errors import ConfigError
from streamml.ports.codec import Decoded, Decoder
from streamml.schema.contract import Contract
from streamml.schema.field import Field

__all__ = ["json_decoder", "json_encoder"]

Audit = Callable[[Sequence[bytes], Sequence[Any]], dict[int, str]]
_UNFIT: Final = "A value that a validator or a default made does not fit its column."
_UNBUILDABLE: Final = (TypeError, ValueError, OverflowError)


def json_decoder(
    contract: Contract,
    *,
    columns: frozenset[str],
    parsing: Literal["strict", "pydantic"] = "strict",
    duplicate_keys: Literal["reject", "last"] = "reject",
    max_record_bytes: int = 1_048_576,
) -> Decoder:
    """A decoder of JSON objects.

    A record fails alone, whatever is wrong with it. All fields are checked; unknown ones are ignored, but have to be
    JSON and valid UTF-8 as well (pydantic's parser takes NaN there).

    Args:
        contract: what a record must be.
        columns: fields to return as columns; the others are only checked.
        parsing: ``"strict"``: types as declared, no conversion; ``"pydantic"``: the model's own rules and validators,
            several times slower. Numbers are finite and integers fit 64 bits either way.
        duplicate_keys: a record that repeats a key, at any level, fails, or its last one counts.
        max_record_bytes: a larger record fails without being parsed.

    Raises:
        ConfigError: ``columns`` has names that are no fields, or strict parsing cannot represent the contract.
    """
    unknown = columns - contract.columns.keys()
    if unknown:
        raise ConfigError([f"`{contract.model.__name__}` has no field `{name}`; add it." for name in sorted(unknown)])
    fields = [field for field in contract.fields if field.name in columns]
    audit: Audit = _not_utf8 if duplicate_keys == "last" else _flaws
    if parsing == "pydantic":
        readers = {field.name: _model_reader(field) for field in fields}
        parse, reason = _pydantic_parser(contract), partial(explain_pydantic, contract)
        return JsonDecoder(parse, reason, audit, readers, transposer(list(readers)), max_record_bytes)
    record = record_type(contract)
    strict = msgspec.json.Decoder(record).decode
    if duplicate_keys == "reject":
        audit = partial(_flaws_of_suspects, QuoteFloor(contract.fields))
    readers = {field.name: _strict_reader(field) for field in fields}
    return JsonDecoder(strict, explain, audit, readers, transposer(list(readers), record), max_record_bytes)


class JsonDecoder:
    """Parses each record, audits what the parser let pass, builds the columns. Use `json_decoder`."""

    def __init__(
        self,
        parse: Callable[[bytes], Any],
        explain: Callable[[Exception], str],
        audit: Audit,
        readers: Mapping[str, ColumnReader],
        transpose: Transpose,
        max_record_bytes: int,
    ) -> None:
        self._parse = parse
        self._explain = explain
        self._audit = audit
        self._readers = readers
        self._transpose = transpose
        self._limit = max_record_bytes

    def decode(self, values: Array) -> Decoded:
        """See `streamml.ports.codec.Decoder`."""
        records: list[bytes] = values.tolist()
        rows, failed = attempt(self._parse, self._admitted(records), self._explain)
        for index in failed:
            failed[index] = self._refused(records[index]) or failed[index]
        places = np.arange(len(records))
        survivors = _Survivors(np.delete(places, list(failed)) if failed else places, rows, failed)
        survivors.drop(self._audit(values[survivors.kept].tolist() if failed else records, rows))
        columns = self._columns(survivors)
        return Decoded(survivors.kept, columns, sorted(failed.items()))

    def _admitted(self, records: list[bytes]) -> list[bytes]:
        if max(map(len, records), default=0) <= self._limit:
            return records
        return [b"" if len(record) > self._limit else record for record in records]

    def _refused(self, record: bytes) -> str | None:
        if len(record) > self._limit:
            return f"Record has {len(record)} bytes, and at most {self._limit} are allowed (max_record_bytes)."
        return None if record else "Record is empty."

    def _columns(self, survivors: _Survivors) -> dict[str, Array]:
        try:
            return self._read(survivors.rows)
        except _UNBUILDABLE:  # a validator or a default factory of the user's made something else than it declares
            survivors.drop({at: _UNFIT for at, row in enumerate(survivors.rows) if not self._readable(row)})
            return self._read(survivors.rows)

    def _read(self, rows: Sequence[Any]) -> dict[str, Array]:
        values = self._transpose(rows)
        return {name: read(those) for (name, read), those in zip(self._readers.items(), values, strict=True)}

    def _readable(self, row: Any) -> bool:
        try:
            self._read([row])
        except _UNBUILDABLE:
            return False
        return True


@dataclass(slots=True)
class _Survivors:
    """Rows that nothing was found against yet, their indices into the input, and the reasons of the others."""

    kept: Int
    rows: list[Any]
    failed: dict[int, str]

    def drop(self, bad: Mapping[int, str]) -> None:
        """Fail the rows at these places among `rows`."""
        if bad:
            self.failed.update((int(self.kept[at]), reason) for at, reason in bad.items())
            self.kept = np.delete(self.kept, list(bad))
            self.rows = [row for at, row in enumerate(self.rows) if at not in bad]


def _flaws(records: Sequence[bytes], rows: Sequence[Any]) -> dict[int, str]:
    return flaws(records)


def _not_utf8(records: Sequence[bytes], rows: Sequence[Any]) -> dict[int, str]:
    return not_utf8(records)


def _flaws_of_suspects(floor: QuoteFloor, records: Sequence[bytes], rows: Sequence[Any]) -> dict[int, str]:
    suspects = floor.suspects(records, rows)
    if not suspects:
        return {}
    return {suspects[at]: flaw for at, flaw in flaws([records[at] for at in suspects]).items()}


def _strict_reader(field: Field) -> ColumnReader:
    reader = column_reader(field, _encoded if field.value.kind == "bytes" else None)
    if not field.required:
        check_default(field, reader)
    return reader


def _model_reader(field: Field) -> ColumnReader:
    return column_reader(field, _plain_choices if field.value.kind == "choice" else None)


def _encoded(values: Iterable[str | bytes]) -> Iterable[bytes]:
    return [value if isinstance(value, bytes) else value.encode() for value in values]  # a default is bytes already


def _plain_choices(values: Iterable[Any]) -> Iterable[Any]:
    return [getattr(value, "value", value) for value in values]


def _pydantic_parser(contract: Contract) -> Callable[[bytes], BaseModel]:
    validate = contract.model.model_validate_json

    def parse(record: bytes) -> BaseModel:
        event = validate(record)
        if not _holdable(event):
            raise Unholdable
        return event

    return parse


def _holdable(value: Any) -> bool:
    """Whether every number in ``value``, at any depth, is finite and, where whole, fits 64 bits."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return INT64[0] <= value <= INT64[1]
    if isinstance(value, BaseModel):
        return all(map(_holdable, vars(value).values()))
    if isinstance(value, dict):
        return all(map(_holdable, value.values()))
    return all(map(_holdable, value)) if isinstance(value, (list, tuple, set, frozenset)) else True
