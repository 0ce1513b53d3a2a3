"""What a contract says about a pydantic model."""

from __future__ import annotations

import enum
import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AliasChoices,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    StringConstraints,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_validator,
)

from streamml.errors import ConfigError
from streamml.schema.contract import Contract


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Inner(BaseModel):
    size: int = 1


def contract_of(annotation: Any, default: Any = ..., config: ConfigDict | None = None) -> Contract:
    """A contract with the one field ``x``."""
    return Contract.of(create_model("Model", __config__=config, x=(annotation, default)))


@pytest.mark.parametrize(
    ("annotation", "column"),
    [
        (bool, "bool"),
        (int, "i8"),
        (float, "f8"),
        (str, "text"),
        (bytes, "bytes"),
        (datetime, "timestamp"),
        (AwareDatetime, "timestamp"),
        (Literal["a", "b"], "text"),
        (Literal["a", None], "text?"),
        (Literal[1, 2], "i8"),
        (Colour, "text"),
        (Level, "i8"),
        (Annotated[list[float], Field(min_length=3, max_length=3)], "f8[3]"),
        (Annotated[list[int], Field(min_length=2, max_length=2)] | None, "i8[2]?"),
        (Annotated[list[float], Field(min_length=2, max_length=3)], "object"),
        (Annotated[list[str], Field(min_length=2, max_length=2)], "object"),
        (list[float], "object"),
        (dict[str, int], "object"),
        (Inner, "object"),
        (int | str, "object"),
        (float | None, "f8?"),
        (Inner | None, "object?"),
        (Any, "object?"),
    ],
)
def test_a_field_has_the_column_type_of_its_annotation(annotation: Any, column: str) -> None:
    contract = contract_of(annotation)
    assert {name: str(type_) for name, type_ in contract.columns.items()} == {"x": column}
    assert contract.problems == ()
    assert contract.output_problems == ()


@pytest.mark.parametrize(
    ("annotation", "constraints"),
    [
        (Annotated[int, Field(ge=1, lt=9)], {"ge": 1, "lt": 9}),
        (Annotated[float | None, Field(gt=0)], {"gt": 0}),
        (
            Annotated[str, Field(min_length=1, max_length=2, pattern="^a")],
            {"min_length": 1, "max_length": 2, "pattern": "^a"},
        ),
        (Annotated[int, Field(multiple_of=5)], {"multiple_of": 5}),
        (AwareDatetime, {"tz_constraint": "aware"}),
    ],
)
def test_constraints_are_read_however_they_are_written(annotation: Any, constraints: dict[str, Any]) -> None:
    assert contract_of(annotation).fields[0].constraints == constraints


def test_fields_keep_their_order_names_and_defaults() -> None:
    class Model(BaseModel):
        b: int
        a: str = Field("z", alias="A")
        c: list[int] = Field(default_factory=list)

    fields = Contract.of(Model).fields
    assert [(f.name, f.alias, f.required, f.default, f.default_factory) for f in fields] == [
        ("b", "b", True, None, None),
        ("a", "A", False, "z", None),
        ("c", "c", False, None, list),
    ]
    assert [field.nullable for field in fields] == [False, False, False]


def test_a_default_of_none_makes_a_column_nullable() -> None:
    assert contract_of(int, None).fields[0].nullable


def test_a_nested_model_is_read_with_its_fields() -> None:
    (field,) = contract_of(list[Inner]).fields
    assert [inner.name for inner in field.value.items[0].fields] == ["size"]


def test_a_contract_is_data() -> None:
    first, second = Contract.of(Inner), Contract.of(Inner)
    assert first == second
    with pytest.raises(AttributeError):
        first.fields = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("annotation", "config", "said"),
    [
        (Decimal, {}, "`Model.x` has the type `decimal`"),
        (set[int], {}, "`Model.x` has the type `set`"),
        (Literal["a", 1], {}, "`Model.x` has choices"),
        (Literal[True], {}, "`Model.x` has choices"),
        (Annotated[str, StringConstraints(strip_whitespace=True)], {}, "`Model.x` uses `strip_whitespace`"),
        (Annotated[bytes, Field(max_length=3)], {}, "`Model.x` uses `max_length`"),
        (list[bytes], {}, "`Model.x` holds bytes inside"),
        (dict[str, Decimal], {}, "`Model.x[]` has the type `decimal`"),
        (Annotated[str, Field(pattern=re.compile("a"))], {}, "`Model.x` has a pattern that is a compiled"),
        (Annotated[int, Field(validation_alias=AliasChoices("a", "b"))], {}, "`Model.x` has an alias"),
        (Annotated[int, Field(alias="X")], {"populate_by_name": True}, "`Model` takes names next to aliases"),
        (str, {"str_strip_whitespace": True}, "`Model` has the config `str_strip_whitespace`"),
        (bytes, {"val_json_bytes": "base64"}, "`Model` has the config `val_json_bytes`"),
        (int, {"extra": "forbid"}, '`Model` has extra="forbid"'),
    ],
)
def test_what_strict_parsing_cannot_represent_is_a_problem_with_a_remedy(
    annotation: Any, config: ConfigDict, said: str
) -> None:
    (problem,) = contract_of(annotation, config=config).problems
    assert problem.startswith(said)
    assert problem.endswith('set parsing="pydantic".')


@pytest.mark.parametrize(
    "config", [{"extra": "allow"}, {"extra": "ignore"}, {"frozen": True}, {"populate_by_name": True}]
)
def test_config_that_changes_nothing_for_records_is_no_problem(config: ConfigDict) -> None:
    assert contract_of(int, config=config).problems == ()


def test_validators_and_hooks_are_problems() -> None:
    class Model(BaseModel):
        a: int

        @field_validator("a")
        @classmethod
        def even(cls, value: int) -> int:
            return value

        @model_validator(mode="after")
        def whole(self) -> Model:
            return self

        def model_post_init(self, context: Any, /) -> None: ...

    contract = Contract.of(Model)
    assert [problem.split(";")[0] for problem in contract.problems] == [
        "`Model` runs a validator",
        "`Model` uses `post_init`",
        "`Model.a` runs a validator",
    ]
    assert str(contract.columns["a"]) == "i8"


def test_a_nested_model_may_be_used_more_than_once() -> None:
    class Model(BaseModel):
        first: Inner
        second: Inner

    contract = Contract.of(Model)
    assert contract.problems == ()
    assert contract.fields[0].value == contract.fields[1].value


class Tree(BaseModel):
    child: Tree | None = None


def test_a_model_that_contains_itself_is_a_problem() -> None:
    assert Contract.of(Tree).problems[0].startswith("`Tree.child` contains itself")


def test_what_an_encoder_does_not_write_is_an_output_problem() -> None:
    class Model(BaseModel):
        a: int = Field(exclude=True)
        b: int = Field(serialization_alias="B")
        c: Annotated[int, PlainSerializer(str)] = 1
        d: int

        @field_serializer("d")
        def written(self, value: int) -> str:
            return str(value)

        @computed_field  # type: ignore[prop-decorator]
        @property
        def e(self) -> int:
            return 1

    contract = Contract.of(Model)
    assert sorted(problem.split()[0] for problem in contract.output_problems) == [f"`Model.{name}`" for name in "abcde"]
    assert contract.problems == ()


def test_bytes_written_as_base64_are_an_output_problem() -> None:
    (problem,) = contract_of(bytes, config=ConfigDict(ser_json_bytes="base64")).output_problems
    assert problem.startswith("`Model` has the config `ser_json_bytes`")


class Unfinished(BaseModel):
    x: NotDefinedAnywhere  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("model", [RootModel[int], Unfinished])
def test_a_model_without_readable_fields_is_refused(model: type[BaseModel]) -> None:
    with pytest.raises(ConfigError):
        Contract.of(model)
