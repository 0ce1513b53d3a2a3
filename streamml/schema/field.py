"""What one field of a record may hold, in terms that any codec can compile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from streamml.batch import column
from streamml.batch.column import ColumnType

BOUNDS: Final = ("ge", "gt", "le", "lt")
_OBJECT: Final = ColumnType("object")
_SCALARS: Final[dict[str, ColumnType]] = {
    "bool": column.boolean,
    "int": column.i8,
    "float": column.f8,
    "str": column.text,
    "bytes": ColumnType("bytes"),
    "datetime": column.timestamp,
}


@dataclass(frozen=True, slots=True)
class Value:
    """What one value in a record may be.

    Args:
        kind: ``bool``, ``int``, ``float``, ``str``, ``bytes``, ``datetime``, ``choice``, ``list``, ``dict``,
            ``union``, ``model`` or ``any``.
        nullable: whether null may stand in its place.
        constraints: (name, limit); names are ``ge``, ``gt``, ``le``, ``lt``, ``multiple_of``, ``min_length``,
            ``max_length``, ``pattern`` and ``tz_constraint``, as pydantic-core spells them.
        choices: the values of a ``choice`` (a ``Literal`` or an ``Enum``): all text, or all integers.
        items: element of a list; key and value of a dict; alternatives of a union.
        fields: fields of a nested model.
        name: name of a nested model.
    """

    kind: str
    nullable: bool = False
    constraints: tuple[tuple[str, Any], ...] = ()
    choices: tuple[Any, ...] = ()
    items: tuple[Value, ...] = ()
    fields: tuple[Field, ...] = ()
    name: str = ""

    @property
    def column(self) -> ColumnType:
        """The type of a column of such values."""
        return replace(_vector(self) or _SCALARS.get(self._scalar, _OBJECT), nullable=self.nullable)

    @property
    def quoted(self) -> bool:
        """Whether every value that is not null is written as text."""
        return self._scalar in ("str", "bytes", "datetime")

    @property
    def _scalar(self) -> str:
        if self.kind != "choice":
            return self.kind
        return "str" if isinstance(self.choices[0], str) else "int"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a contract.

    Args:
        name: attribute of the model, and name of the column.
        alias: name in the record.
        value: what it may hold.
        required: whether a record must have it.
        default: what it is where a record does not have it.
        default_factory: makes the default of every such record anew.
    """

    name: str
    alias: str
    value: Value
    required: bool = True
    default: Any = None
    default_factory: Callable[[], Any] | None = None

    @property
    def column(self) -> ColumnType:
        """Type of the field's column; nullable also where its default is ``None``."""
        found = self.value.column
        defaults_to_null = not self.required and self.default is None and self.default_factory is None
        return replace(found, nullable=True) if defaults_to_null else found

    @property
    def nullable(self) -> bool:
        return self.column.nullable

    @property
    def constraints(self) -> Mapping[str, Any]:
        return dict(self.value.constraints)


def _vector(value: Value) -> ColumnType | None:
    limits = dict(value.constraints)
    length = limits.get("min_length")
    if value.kind != "list" or not length or limits.get("max_length") != length:
        return None
    item = value.items[0]
    return _SCALARS[item.kind][length] if item.kind in ("int", "float") and not item.nullable else None
