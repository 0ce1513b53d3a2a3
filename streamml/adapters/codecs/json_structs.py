"""A contract compiled to msgspec: the types that check a record, and what went wrong in words.

Absent fields of a record become `UNSET`, so that the columns can tell absent from null.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeVar, Union

import msgspec
from msgspec import UNSET, Meta, Struct
from pydantic import ValidationError

from streamml.errors import ConfigError
from streamml.schema.contract import Contract
from streamml.schema.field import Field, Value

INT64: Final = (-(2**63), 2**63 - 1)
_SAFE: Final = ("Expected ", "Object missing ", "Invalid RFC3339 ", "Number out of range", "Integer value out of range")
_GENERIC: Final[dict[str, Any]] = {"list": list, "dict": dict, "union": Union}
_PLAIN: Final = {"bool": bool, "float": float, "str": str, "bytes": str, "datetime": datetime, "any": Any}
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Unholdable(Exception):
    """A number that is not finite, or a whole one beyond 64 bits, got past a lenient parser."""


def record_type(contract: Contract) -> type[Struct]:
    """The struct that a record of ``contract`` decodes to: attributes are field names, bytes are still text.

    Raises:
        ConfigError: strict parsing cannot represent the contract.
    """
    if contract.problems:
        raise ConfigError(contract.problems)
    name = contract.model.__name__
    try:
        found = _struct(name, contract.fields, lambda field: UNSET)
        msgspec.json.Decoder(found)
    except (TypeError, ValueError, re.error) as error:
        raise ConfigError(f'`{name}` cannot be parsed strictly: {error}; set parsing="pydantic".') from error
    return found


def _struct(name: str, fields: Iterable[Field], absent: Callable[[Field], Any]) -> type[Struct]:
    fields = tuple(fields)
    declared: list[Any] = [
        (field.name, type_of(field.value)) if field.required else (field.name, type_of(field.value), absent(field))
        for field in fields
    ]
    rename = {field.name: field.alias for field in fields}
    return msgspec.defstruct(name, declared, rename=rename, kw_only=True, gc=False)


def default_maker(field: Field) -> Callable[[], Any]:
    """Makes the field's default anew for every row."""
    return field.default_factory or partial(copy.deepcopy, field.default)


def type_of(value: Value) -> Any:
    """The msgspec type of ``value``; integers fit 64 bits at every level."""
    found = _bare_type(value)
    limits = _limits(value)
    found = Annotated[found, Meta(**limits)] if limits else found
    return Union[found, None] if value.nullable else found  # noqa: UP007 - found is no class


def _bare_type(value: Value) -> Any:
    if value.kind == "int":
        return int
    if value.kind == "choice":
        return Literal[value.choices]
    if value.kind == "model":
        return _struct(value.name, value.fields, lambda field: msgspec.field(default_factory=default_maker(field)))
    items = tuple(type_of(item) for item in value.items)
    return _GENERIC[value.kind][items] if items else _PLAIN[value.kind]


def _limits(value: Value) -> dict[str, Any]:
    limits = dict(value.constraints)
    if "tz_constraint" in limits:
        limits["tz"] = limits.pop("tz_constraint") == "aware"
    if "pattern" in limits:  # `$` of pydantic's regex engine is the end; Python's also stands before a last newline
        limits["pattern"] = re.sub(r"(?<!\\)\$$", r"\\Z", limits["pattern"])
    if value.kind == "int":
        lower, upper = INT64
        limits |= {} if "gt" in limits else {"ge": max(limits.get("ge", lower), lower)}
        limits |= {} if "lt" in limits else {"le": min(limits.get("le", upper), upper)}
    return limits


def attempt(
    call: Callable[[_Item], _Result], items: Iterable[_Item], explain: Callable[[Exception], str]
) -> tuple[list[_Result], dict[int, str]]:
    """``call`` on every item: the results of those that did not raise, and why the others did, by index."""
    results: list[_Result] = []
    failed: dict[int, str] = {}
    pending = iter(items)
    while True:
        try:
            results.extend(map(call, pending))  # keeps what it appended when one item raises
        except Exception as error:  # noqa: BLE001  the item is failed with it
            failed[len(results) + len(failed)] = explain(error)
        else:
            return results, failed


def explain(error: Exception) -> str:
    """Why a record was refused, without any value of it."""
    if isinstance(error, UnicodeError):
        return "Record is not valid UTF-8."
    if isinstance(error, RecursionError):
        return "Record is nested too deeply."
    if isinstance(error, Unholdable):
        return "Record holds a number that is not finite, or an integer beyond 64 bits."
    if isinstance(error, msgspec.ValidationError):
        message, at, path = str(error).rpartition(" - at ")
        message = message if at else path
        return f"{message if message.startswith(_SAFE) else 'Value is none of the choices'}{at}{path if at else ''}."
    if isinstance(error, msgspec.DecodeError):
        return f"Record is not JSON: {str(error).removeprefix('JSON is malformed: ')}."
    return f"Record does not fit its contract ({type(error).__name__})."


def explain_pydantic(contract: Contract, error: Exception) -> str:
    """As `explain`; of a pydantic error only the field and the kind, since messages and paths may hold values."""
    if not isinstance(error, ValidationError):
        return explain(error)
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    names = {name for field in contract.fields for name in (field.name, field.alias)}
    where = first["loc"][0] if first["loc"] and first["loc"][0] in names else "record"
    return f"`{where}` does not fit the contract: {first['type']}."
