"""Whether a declaration holds what its annotations say. What is not of its type would fail somewhere else, as a bug of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def type_problems(declaration: object) -> Iterator[str]:
    """Every field, also of what is declared within, that is not of its declared type. Choices (``Literal``) are not looked at."""
    kind = type(declaration)
    hints = get_type_hints(kind)
    for field in fields(declaration):  # type: ignore[arg-type] # callers pass dataclasses
        value = getattr(declaration, field.name)
        if not _fits(value, hints[field.name]):
            yield f"{_named(declaration)}: {field.name} is {value!r:.60}; it has to be {field.type}."
            continue
        for inner in value if isinstance(value, tuple) else (value,):
            if is_dataclass(inner) and not isinstance(inner, type):
                yield from type_problems(inner)


def _named(declaration: object) -> str:
    known = {field.name for field in fields(declaration)}  # type: ignore[arg-type]
    label = next((getattr(declaration, one) for one in ("name", "topic") if one in known), None)
    return type(declaration).__name__ + (f" {label!r}" if isinstance(label, str) else "")


def _fits(value: object, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, inner[0]) for one in value)
    if origin is type:
        return isinstance(value, type) and issubclass(value, inner[0])
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if origin is not None or hint is Any or origin is Literal:
        return True
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)
