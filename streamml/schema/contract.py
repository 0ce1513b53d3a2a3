"""A pydantic model read as data: what the records of a topic hold."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from streamml.batch.column import ColumnType
from streamml.errors import ConfigError
from streamml.schema.core_schema import CoreSchemaReader
from streamml.schema.field import Field


@dataclass(frozen=True, slots=True)
class Contract:
    """What the records of a topic hold.

    Args:
        model: the pydantic model it was read from.
        fields: its fields, in the order of the model.
        problems: what strict parsing cannot represent, each a sentence with its remedy.
        output_problems: what an encoder does not write as the model would, likewise.
    """

    model: type[BaseModel]
    fields: tuple[Field, ...]
    problems: tuple[str, ...] = ()
    output_problems: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, ColumnType]:
        """Column types by field name, in the order of the model."""
        return {field.name: field.column for field in self.fields}

    @staticmethod
    def of(model: type[BaseModel]) -> Contract:
        """Read a pydantic model.

        Naive datetimes are taken as UTC. An ``Enum`` is held as its value. Lists, dicts, unions and nested models
        are object columns; a nested model's value has the model's fields as attributes. Numbers are finite and
        integers fit 64 bits, whatever the model says.

        Raises:
            ConfigError: the model has no named fields (``RootModel``), or refers to types that are not defined.
        """
        if model.__pydantic_root_model__:
            raise ConfigError(f"{model.__name__} is a RootModel and has no named fields; use a BaseModel.")
        if not model.__pydantic_complete__ and not model.model_rebuild(raise_errors=False):
            raise ConfigError(f"{model.__name__} refers to an undefined type; define it, then call model_rebuild().")
        reader = CoreSchemaReader()
        fields = reader.value(model.__pydantic_core_schema__, model.__name__).fields
        return Contract(model, fields, tuple(reader.problems), tuple(reader.output_problems))
