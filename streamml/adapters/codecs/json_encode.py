"""Columns to JSON records: whole columns are checked, then rows are written by loops in C."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import repeat
from types import NoneType
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from pydantic import BaseModel

from streamml.adapters.codecs.json_columns import EPOCH
from streamml.adapters.codecs.json_structs import INT64, attempt, default_maker, explain, explain_pydantic, record_type
from streamml.batch.column import Array, Columns, ColumnType, object_array, problem_with, sealed
from streamml.batch.microbatch import Mask
from streamml.errors import ConfigError
from streamml.ports.codec import Encoded
from streamml.schema.contract import Contract
from streamml.schema.field import BOUNDS, Field

_BREAKS: Final = {"ge": operator.lt, "gt": operator.le, "le": operator.gt, "lt": operator.ge}
_YEARS: Final = (np.datetime64("0001-01-01", "us"), np.datetime64("9999-12-31T23:59:59.999999", "us"))
_EPOCH: Final = np.datetime64(0, "us")
# Where numpy's own text conversion is quicker than the calls below.
_FEW: Final = 64

Flaws = list[tuple[Mask, str]]


def json_encoder(contract: Contract, *, columns: frozenset[str] | None = None) -> JsonEncoder:
    """An encoder to JSON objects with the contract's names.

    Args:
        contract: what a record must be.
        columns: names of the columns that `JsonEncoder.encode` will get, ``None``: all fields. A field without a
            column is written with its default. Columns that are no fields are left out.

    Raises:
        ConfigError: a field has neither column nor default, or the contract cannot be written.
    """
    fed = [field for field in contract.fields if columns is None or field.name in columns]
    rest = [field for field in contract.fields if field not in fed]
    problems = [f"`{field.name}` has neither a column nor a default; add one." for field in rest if field.required]
    if problems or contract.output_problems:
        raise ConfigError([*contract.output_problems, *problems])
    names: list[Any] = [(field.name, Any) for field in fed]
    names += [(field.name, Any, msgspec.field(default_factory=_default(field))) for field in rest]
    rename = {field.name: field.alias for field in contract.fields}
    row = msgspec.defstruct(contract.model.__name__, names, rename=rename, gc=False)
    return JsonEncoder(tuple(fed), row, _verifier(contract), partial(explain_pydantic, contract))


class JsonEncoder:
    """Checks columns, writes rows. Use `json_encoder`."""

    def __init__(
        self,
        fields: Sequence[Field],
        row: type[Struct],
        verify: Callable[[bytes], object] | None,
        explain: Callable[[Exception], str],
    ) -> None:
        self.columns: Final = frozenset(field.name for field in fields)
        # Deriving a field's column type costs microseconds, which a small batch would pay for every field.
        self._fields = [(field, field.column) for field in fields]
        self._row = row
        self._verify = verify
        self._explain = explain
        self._write = msgspec.json.Encoder(enc_hook=_plain).encode

    def encode(self, columns: Columns, rows: int) -> Encoded:
        """See `streamml.ports.codec.Encoder`; ``columns`` has at least `self.columns`."""
        for field, declared in self._fields:
            if problem := _misfit(field, declared, columns[field.name], rows):
                return Encoded(np.full(rows, None), [(index, problem) for index in range(rows)])
        failed: dict[int, str] = {}
        cells = [_cells(field, declared, columns[field.name], failed) for field, declared in self._fields]
        values = self._written(map(self._row, *cells) if cells else repeat(self._row(), rows), rows, failed)
        if self._verify is not None:
            kept = np.delete(np.arange(rows), list(failed))
            _, refused = attempt(self._verify, values[kept].tolist(), self._explain)
            failed |= {int(kept[at]): reason for at, reason in refused.items()}
        if failed:
            values[list(failed)] = None
        return Encoded(sealed(values), sorted(failed.items()))

    def _written(self, structs: Iterable[Struct], rows: int, failed: dict[int, str]) -> Array:
        written, errors = attempt(self._write, structs, explain)
        if not errors:
            return object_array(written, rows)
        failed |= errors | failed
        values = np.full(rows, None)
        values[np.delete(np.arange(rows), list(errors))] = object_array(written, len(written))
        return values


def _verifier(contract: Contract) -> Callable[[bytes], object] | None:
    """Refuses a written record for the rules that no column was checked against; ``None``: there are none."""
    if contract.problems:
        return contract.model.model_validate_json
    if not any(map(_has_further_rules, contract.fields)):
        return None
    try:
        return msgspec.json.Decoder(record_type(contract)).decode
    except ConfigError:
        return contract.model.model_validate_json


def _has_further_rules(field: Field) -> bool:
    if field.column.shape:
        return bool(field.value.items[0].constraints)
    return field.value.kind in ("list", "dict", "union", "model") or not field.constraints.keys() <= set(BOUNDS)


def _default(field: Field) -> Callable[[], Any]:
    make = default_maker(field)

    def written() -> Any:
        value = make()
        if isinstance(value, bytes):
            return value.decode()
        return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value

    return written


def _misfit(field: Field, declared: ColumnType, column: Array, rows: int) -> str | None:
    free = declared.kind == "object" and column.shape[:1] == (rows,)
    problem = None if free else problem_with(column, declared, rows)
    return problem and f"Column `{field.name}` {problem}."


def _cells(field: Field, declared: ColumnType, column: Array, failed: dict[int, str]) -> list[Any]:
    """The column as Python values, ``None`` for null; what is wrong goes to ``failed``, where a first reason stays."""
    null, flaws = np.zeros(len(column), np.bool_), Flaws()
    if isinstance(column, np.ma.MaskedArray):
        mask, column = np.ma.getmaskarray(column), np.ma.getdata(column)
        null = _any(mask)
        flaws.append((null & _any(~mask), "is null only in part"))
    values, found = _WRITERS.get(declared.kind, _numbers)(field, declared, column, null)
    flaws += found
    if not declared.nullable:
        flaws.append((null, "has no value, and its field is not nullable"))
    if field.value.kind == "choice" and not set(values) <= {None, *field.value.choices}:
        flaws.append((_mask(value not in field.value.choices for value in values) & ~null, "is none of the choices"))
    for bad, flaw in flaws:
        for index in bad.nonzero()[0].tolist():
            failed.setdefault(index, f"Column `{field.name}` {flaw}.")
    for index in null.nonzero()[0].tolist():
        values[index] = None
    return values


def _any(mask: Mask) -> Mask:
    return mask if mask.ndim == 1 else np.asarray(mask.any(axis=tuple(range(1, mask.ndim))))


def _mask(truths: Iterable[bool]) -> Mask:
    return np.fromiter(truths, np.bool_)


def _numbers(field: Field, declared: ColumnType, data: Array, null: Mask) -> tuple[list[Any], Flaws]:
    flaws: Flaws = []
    if data.dtype.kind == "f":
        if declared.nullable and not declared.shape:
            null |= np.isnan(data)
        finite = np.isfinite(data)
        if not finite.all():
            flaws.append((_any(~finite) & ~null, "is not finite"))
    elif data.dtype == np.uint64:
        flaws.append((_any(data > INT64[1]) & ~null, "is beyond 64 bits"))
    data = _shortened(data) if data.dtype == np.float32 else data.astype(declared.dtype, copy=False)
    for name, limit in field.constraints.items():
        if name in _BREAKS and not declared.shape:
            flaws.append((_BREAKS[name](data, limit) & ~null, f"is out of bounds ({name}={limit})"))
    return data.tolist(), flaws


def _shortened(single: Array) -> Array:
    """float64 of the same shape with the fewest of 7 to 9 digits that read back as the same float32."""
    if single.size <= _FEW:
        return single.astype(np.str_).astype(np.float64)
    exact = single.astype(np.float64)
    magnitude = np.abs(exact)
    usual = (magnitude >= 1e-9) & (magnitude < 1e9)
    exponent = np.floor(np.log10(np.where(usual, magnitude, 1.0)))
    shortest = exact
    for digits in (9, 8, 7):
        scale = 10.0 ** (digits - 1 - exponent)
        rounded = np.rint(exact * scale) / scale
        shortest = np.where(usual & (rounded.astype(np.float32) == single), rounded, shortest)
    return shortest


def _times(field: Field, declared: ColumnType, data: Array, null: Mask) -> tuple[list[Any], Flaws]:
    moments = data.astype(declared.dtype, copy=False)
    null |= np.isnat(moments)
    beyond = ((moments < _YEARS[0]) | (moments > _YEARS[1])) & ~null
    gaps = np.where(null | beyond, _YEARS[0] - _YEARS[0], moments - _EPOCH)
    return list(map(EPOCH.__add__, gaps.tolist())), [(beyond, "is outside the years 1 to 9999")]


def _texts(field: Field, declared: ColumnType, data: Array, null: Mask) -> tuple[list[Any], Flaws]:
    values, _ = _objects(field, declared, data, null)
    wanted: type = bytes if declared.kind == "bytes" else str
    if wanted is str and set(map(type, values)) <= {str, NoneType}:
        return values, []
    texts = [_text(value, wanted) for value in values]
    return texts, [(_mask(text is None for text in texts) & ~null, f"is no {declared.kind}, or not UTF-8")]


def _text(value: Any, wanted: type) -> str | None:
    if not isinstance(value, wanted):
        return None
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        return None


def _objects(field: Field, declared: ColumnType, data: Array, null: Mask) -> tuple[list[Any], Flaws]:
    values = data.tolist()
    if NoneType in set(map(type, values)):
        null |= _mask(map(operator.is_, values, repeat(None)))
    return values, []


_WRITERS: Final = {"timestamp": _times, "text": _texts, "bytes": _texts, "object": _objects}


def _plain(value: Any) -> Any:
    """What msgspec does not write itself, as something that it does."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError
