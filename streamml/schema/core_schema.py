"""Reads pydantic-core schemas: there every constraint and every custom validator shows, however it was written down.

What has no representation becomes a problem, never silence: keys that are not known here are reported too.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from streamml.schema.field import BOUNDS, Field, Value

Schema = Mapping[str, Any]

_REMEDY: Final = 'strict parsing cannot represent this: set parsing="pydantic"'
_ANY: Final = Value("any", nullable=True)
_ANY_SCHEMA: Final[Schema] = {"type": "any"}
_LENGTHS: Final = ("min_length", "max_length")
_CONSTRAINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "bool": (),
    "bytes": (),
    "int": (*BOUNDS, "multiple_of"),
    "float": (*BOUNDS, "multiple_of"),
    "str": (*_LENGTHS, "pattern"),
    "datetime": ("tz_constraint",),
    "list": _LENGTHS,
    "dict": _LENGTHS,
}
_NEUTRAL: Final = (
    "type ref metadata serialization strict schema items_schema keys_schema values_schema choices expected members cls "
    "sub_type mode auto_collapse fail_fast allow_inf_nan microseconds_precision custom_error_type custom_error_message "
    "custom_error_context frozen config generic_origin extra_behavior"
)
_NEUTRAL_CONFIG: Final = (
    "title strict frozen allow_inf_nan validate_default from_attributes revalidate_instances use_enum_values "
    "hide_input_in_errors loc_by_alias cache_strings serialize_by_alias validate_by_alias ser_json_timedelta "
    "ser_json_inf_nan"
)
_OUTPUT_CONFIG: Final = {"ser_json_bytes": "utf8", "ser_json_temporal": "iso8601"}


class CoreSchemaReader:
    """Reads one model, nested models included, and collects what cannot be decoded or encoded as the model would."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.output_problems: list[str] = []
        self._known: dict[str, Schema] = {}
        self._open: set[str] = set()

    def value(self, schema: Schema, where: str) -> Value:
        """The value that ``schema`` allows; ``where`` is its path, for sentences."""
        kind: str = schema["type"]
        if "serialization" in schema:
            self._unwritten(where, "has a serializer")
        if kind in ("definitions", "definition-ref"):
            return self._referred(schema, where)
        if kind.startswith("function-"):
            self._problem(where, "runs a validator")
            return self.value(schema.get("schema", _ANY_SCHEMA), where)
        if kind == "nullable":
            return replace(self.value(schema["schema"], where), nullable=True)
        return self._unwrapped(schema, where)

    def _unwrapped(self, schema: Schema, where: str) -> Value:
        kind: str = schema["type"]
        if kind not in (*_CONSTRAINTS, "union", "literal", "enum", "model", "any"):
            self._problem(where, f"has the type `{kind}`")
            return _ANY
        self._note_unknown(schema, where)
        if kind in ("literal", "enum"):
            return self._choice(schema, where)
        if kind == "model":
            return self._model(schema, where)
        if kind == "any":
            return _ANY
        return Value(kind, constraints=self._constraints(schema), items=self._items(schema, where))

    def _problem(self, where: str, what: str) -> None:
        self.problems.append(f"`{where}` {what}; {_REMEDY}.")

    def _note_unknown(self, schema: Schema, where: str) -> None:
        known = _CONSTRAINTS.get(schema["type"], ())
        for key, set_to in schema.items():
            if key not in _NEUTRAL.split() and key not in known and set_to not in (None, False):
                self._problem(where, f"uses `{key}`")
        if not isinstance(schema.get("pattern", ""), str):
            self._problem(where, "has a pattern that is a compiled `re`")

    def _referred(self, schema: Schema, where: str) -> Value:
        if schema["type"] == "definitions":
            self._known.update({known["ref"]: known for known in schema["definitions"]})
            return self.value(schema["schema"], where)
        name: str = schema["schema_ref"]
        if name in self._open:
            self._problem(where, "contains itself")
            return _ANY
        self._open.add(name)
        found = self.value(self._known[name], where)
        self._open.discard(name)
        return found

    def _constraints(self, schema: Schema) -> tuple[tuple[str, Any], ...]:
        limits = {name: schema.get(name) for name in _CONSTRAINTS.get(schema["type"], ())}
        return tuple((name, limit) for name, limit in limits.items() if limit is not None)

    def _items(self, schema: Schema, where: str) -> tuple[Value, ...]:
        names = {"list": ("items_schema",), "dict": ("keys_schema", "values_schema")}.get(schema["type"], ())
        inner = [schema.get(name, _ANY_SCHEMA) for name in names] + list(schema.get("choices", ()))
        items = tuple(self.value(item[0] if isinstance(item, tuple) else item, f"{where}[]") for item in inner)
        if any(item.kind == "bytes" for item in items):
            self._problem(where, "holds bytes inside another value")
        return items

    def _choice(self, schema: Schema, where: str) -> Value:
        raw = schema["members"] if schema["type"] == "enum" else schema["expected"]
        values = [member.value if isinstance(member, enum.Enum) else member for member in raw]
        choices = tuple(value for value in values if value is not None)
        if {type(choice) for choice in choices} in ({str}, {int}):
            return Value("choice", None in values, choices=choices)
        self._problem(where, "has choices that are neither all text nor all integers")
        return _ANY

    def _model(self, schema: Schema, where: str) -> Value:
        if schema["schema"]["type"] != "model-fields":
            self._problem(where, f"is a model that holds `{schema['schema']['type']}`")
            return _ANY
        self._note_config(schema, where)
        inner: Schema = schema["schema"]
        fields = tuple(self._field(name, one, f"{where}.{name}") for name, one in inner["fields"].items())
        for computed in inner.get("computed_fields", ()):
            self._unwritten(f"{where}.{computed['property_name']}", "is a computed field")
        return Value("model", fields=fields, name=schema["cls"].__name__)

    def _note_config(self, schema: Schema, where: str) -> None:
        config = schema.get("config", {})
        fields = schema["schema"]["fields"].values()
        for key, set_to in config.items():
            if key == "extra_fields_behavior":
                if set_to == "forbid":
                    self._problem(where, 'has extra="forbid"')
            elif key in ("populate_by_name", "validate_by_name"):
                if set_to and any("validation_alias" in field for field in fields):
                    self._problem(where, "takes names next to aliases")
            elif key in _OUTPUT_CONFIG:
                if set_to != _OUTPUT_CONFIG[key]:
                    self._unwritten(where, f"has the config `{key}`")
            elif key not in _NEUTRAL_CONFIG.split() and set_to not in (None, False, "utf8"):
                self._problem(where, f"has the config `{key}`")

    def _field(self, name: str, schema: Schema, where: str) -> Field:
        alias = schema.get("validation_alias", name)
        if not isinstance(alias, str):
            self._problem(where, "has an alias that is a path or a choice")
            alias = name
        if schema.get("serialization_alias", alias) != alias or schema.get("serialization_exclude"):
            self._unwritten(where, "is written under another name than it is read, or not at all")
        inner: Schema = schema["schema"]
        if inner["type"] != "default":
            return Field(name, alias, self.value(inner, where))
        if "serialization" in inner:
            self._unwritten(where, "has a serializer")
        if inner.get("default_factory_takes_data") or inner.get("on_error", "raise") != "raise":
            self._problem(where, "has a default that depends on the record")
        value = self.value(inner["schema"], where)
        return Field(name, alias, value, False, inner.get("default"), inner.get("default_factory"))

    def _unwritten(self, where: str, what: str) -> None:
        self.output_problems.append(f"`{where}` {what}, which an encoder does not do; make it a plain field or column.")
