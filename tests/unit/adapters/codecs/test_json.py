"""The JSON codec: what fails a record, what a column looks like, what is written."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import AwareDatetime, BaseModel, Field, create_model, field_validator

from streamml.adapters.codecs.json import json_decoder, json_encoder
from streamml.batch.column import Array, object_array
from streamml.errors import ConfigError
from streamml.ports.codec import Decoded, Encoded
from streamml.schema.contract import Contract

PARSINGS: tuple[Literal["strict", "pydantic"], ...] = ("strict", "pydantic")
SECRET = "hunter2"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    size: int = 1
    label: str = "none"


class Event(BaseModel):
    a: int
    b: float = Field(0.5, ge=-10)
    s: str | None = None


class Everything(BaseModel):
    flag: bool
    count: int
    ratio: float
    name: str = Field(alias="Name")
    blob: bytes
    at: datetime
    colour: Colour
    level: Literal[1, 2]
    vector: Annotated[list[float], Field(min_length=2, max_length=2)]
    tags: list[str]
    inner: Inner
    maybe: int | None
    later: datetime | None = None
    other: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None


EVERYTHING: dict[str, Any] = {
    "flag": True,
    "count": -3,
    "ratio": 2,
    "Name": "a\x00b\x00",
    "blob": "é",
    "at": "2020-01-02T03:04:05.000006+02:00",
    "colour": "blue",
    "level": 2,
    "vector": [1, 2.5],
    "tags": ["x"],
    "inner": {"size": 4},
    "maybe": None,
}


def model_of(annotation: Any, default: Any = ...) -> Contract:
    """A contract with the one field ``x``."""
    return Contract.of(create_model("Model", x=(annotation, default)))


def decode(model: type[BaseModel] | Contract, *records: bytes, **options: Any) -> Decoded:
    """Decode into all columns."""
    contract = model if isinstance(model, Contract) else Contract.of(model)
    options.setdefault("columns", frozenset(contract.columns))
    return json_decoder(contract, **options).decode(object_array(records, len(records)))


def encode(model: type[BaseModel] | Contract, rows: int, **columns: Array) -> Encoded:
    """Encode these columns."""
    contract = model if isinstance(model, Contract) else Contract.of(model)
    return json_encoder(contract, columns=frozenset(columns)).encode(columns, rows)


def texts(*values: object) -> Array:
    """An object column."""
    return object_array(values, len(values))


@pytest.mark.parametrize("parsing", PARSINGS)
class TestOneBadRecord:
    """A bad record between two good ones fails, alone, with a sentence."""

    @pytest.fixture(autouse=True)
    def _parsing(self, parsing: Literal["strict", "pydantic"]) -> None:
        self.parsing = parsing

    def fails(self, record: bytes, model: type[BaseModel] = Event, **options: Any) -> str:
        good = b'{"a": 1, "s": "x"}'
        found = decode(model, good, record, good, parsing=self.parsing, **options)
        assert found.kept.tolist() == [0, 2]
        assert found.columns["a"].tolist() == [1, 1]
        ((index, reason),) = found.failed
        assert index == 1
        assert reason.endswith(".")
        assert SECRET not in reason
        return reason

    @pytest.mark.parametrize(
        "record",
        [
            b"null",
            b"[]",
            b"\x00",
            b"{}",
            b'{"a": "x"}',
            b'{"a": null}',
            b'{"a": 1.5}',
            b'{"a": 1, "b": -11}',
            b'{"a": 1, "b": true, "s": 1}',
            b'{"a": 1} {"a": 2}',
            b'{"a": 1},{"a": 2}',
            b'{"a": 1',
            b'"b": 2}',
            b'{"a": 1}x',
            b'{"a": 1}\x00',
            b'\xef\xbb\xbf{"a": 1}',
            b'{"a": 1, "b": NaN}',
            b'{"a": 1, "b": Infinity}',
            b'{"a": 1, "b": -Infinity}',
            b'{"a": 1, "b": 1e400}',
            b'{"a": 9223372036854775808}',
            b'{"a": -9223372036854775809}',
            b'{"a": 1, "s": "\xff"}',
            b'{"a": 1, "s": "\xed\xa0\x80"}',
            b'{"a": 1, "u": "\xff"}',
            b'{"a": 1, "u\xff": 1}',
            b'{"a": 1, "u": {"v": ["\xc3"]}}',
            b'{"a": 1, "s": "\\ud800"}',
            b'{"a": 1, "s": "\\udc00x"}',
            b'{"a": 1, "s": "raw\x00"}',
            b'{"a": 1, "u": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b'{"a": ' + b"[" * 100_000,
        ],
    )
    @pytest.mark.parametrize("duplicate_keys", ["reject", "last"])
    def test_it_fails_alone(self, record: bytes, duplicate_keys: str) -> None:
        self.fails(record, duplicate_keys=duplicate_keys)

    @pytest.mark.parametrize(
        "record",
        [
            b'{"a": 1, "a": 1}',
            b'{"a": 1, "\\u0061": 2}',
            b'{"a": 1, "s": "x", "s": null}',
            b'{"a": 1, "s": null, "s": "x"}',
            b'{"a": 1, "b": 1, "b": 1}',
            b'{"a": 1, "u": 1, "u": 2}',
            b'{"a": 1, "u": {"v": 1, "v": 2}}',
            b'{"a": 1, "u": [[{"v": 1, "\\u0076": 2}]]}',
            b'{"a": 1, "": 1, "": 2}',
            b'{"a": 1, "s": "\\u0022", "a": 1}',
            b'{"a": 1, "s": "\\u0022\\u0022", "u": 1, "u": 1}',
            b'{"a": 1, "s": "\\\\", "u": "\\\\\\"", "u": 1}',
            b'{"a": 1, "u": 1e400, "u": 2}',
            b'{"a": 1, "u": {"v": ' + b"9" * 4000 + b', "v": 1}}',
        ],
    )
    def test_a_repeated_key_fails_it(self, record: bytes) -> None:
        assert self.fails(record) == "Record repeats a key."

    def test_an_empty_record_fails(self) -> None:
        assert self.fails(b"") == "Record is empty."

    def test_a_large_record_fails_without_being_parsed(self) -> None:
        for record in (b'{"a": 1}' + b" " * 33, b"{" * 41):
            reason = self.fails(record, max_record_bytes=40)
            assert reason == "Record has 41 bytes, and at most 40 are allowed (max_record_bytes)."

    @pytest.mark.parametrize(
        "added",
        [
            f'"c": "{SECRET}"',
            f'"c": "{SECRET} - at `$.c`"',
            f'"m": {{"{SECRET}": "x"}}',
            f'"m": {{"k": "{SECRET}"}}',
            f'"p": "{SECRET}"',
            f'"d": "{SECRET}"',
            f'"{SECRET}": NaN, "d": "x"',
            f'"{SECRET}": 1, "{SECRET}": 1',
            f'"v": "{SECRET}"',
        ],
    )
    def test_no_value_of_it_is_in_the_reason(self, added: str) -> None:
        class Model(Event):
            c: Literal["x", "y"] = "x"
            m: dict[str, int] = Field(default_factory=dict)
            p: str = Field("x", pattern="^x$")
            d: datetime = datetime(2020, 1, 1, tzinfo=UTC)
            v: Annotated[list[float], Field(min_length=1, max_length=1)] = Field(default_factory=lambda: [1.0])

        self.fails(f'{{"a": 1, {added}}}'.encode(), Model)


@pytest.mark.parametrize("parsing", PARSINGS)
@pytest.mark.parametrize(
    "record",
    [
        b' {"a": 1}\r\n',
        b'{"\\u0061": 1}',
        b'{"a": 1, "s": "\\"\\\\\\u0022"}',
        b'{"a": 1, "u": "\\"", "v": {"u": "u"}, "w": ["u", "u"]}',
        b'{"a": 1, "u": [{"v": 1}, {"v": 1}]}',
        '{"a": 1, "s": "é😀", "u": "é"}'.encode(),
        b'{"a": 1, "u": 1e400}',
        b'{"a": 9223372036854775807}',
        b'{"a": -9223372036854775808}',
        b'{"a": 1, "A": 2}',
    ],
)
def test_a_record_that_is_odd_but_right_decodes(record: bytes, parsing: str) -> None:
    found = decode(Event, record, parsing=parsing)
    assert found.failed == []
    assert found.columns["a"].tolist() == [json.loads(record)["a"]]


def test_the_last_of_repeated_keys_counts_by_choice() -> None:
    found = decode(Event, b'{"a": 1, "a": 2, "u": 1, "u": 2}', duplicate_keys="last")
    assert found.columns["a"].tolist() == [2]


@pytest.mark.parametrize("parsing", PARSINGS)
def test_every_column_has_its_declared_type(parsing: str) -> None:
    record = json.dumps(EVERYTHING).encode()
    contract = Contract.of(Everything)
    columns = decode(contract, record, record, parsing=parsing).columns
    for name, declared in contract.columns.items():
        assert columns[name].dtype == declared.dtype
        assert columns[name].shape == (2, *declared.shape)
        assert isinstance(columns[name], np.ma.MaskedArray) is declared.nullable
        assert not columns[name].flags.writeable
    values = {name: columns[name].tolist()[1] for name in columns if name not in ("at", "inner")}
    assert values == {
        "flag": True,
        "count": -3,
        "ratio": 2.0,
        "name": "a\x00b\x00",
        "blob": "é".encode(),
        "colour": "blue",
        "level": 2,
        "vector": [1.0, 2.5],
        "tags": ["x"],
        "maybe": None,
        "later": None,
        "other": [None, None],
    }
    assert columns["at"][0] == np.datetime64("2020-01-02T01:04:05.000006")
    assert (columns["inner"][0].size, columns["inner"][0].label) == (4, "none")
    assert type(columns["colour"][0]) is str


@pytest.mark.parametrize("parsing", PARSINGS)
def test_no_record_gives_empty_columns_of_the_same_types(parsing: str) -> None:
    contract = Contract.of(Everything)
    for found in (decode(contract, parsing=parsing), decode(contract, b"x", parsing=parsing)):
        assert found.kept.tolist() == []
        for name, declared in contract.columns.items():
            assert found.columns[name].dtype == declared.dtype
            assert found.columns[name].shape == (0, *declared.shape)


@pytest.mark.parametrize("parsing", PARSINGS)
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2020-01-01T00:00:00", "2020-01-01T00:00:00"),
        ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00"),
        ("0001-01-01T00:00:00+05:00", "0000-12-31T19:00:00"),
        ("9999-12-31T23:59:59.999999-05:00", "10000-01-01T04:59:59.999999"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999"),
    ],
)
def test_timestamps_are_exact_and_naive_ones_are_utc(text: str, moment: str, parsing: str) -> None:
    aware = json.dumps({"x": "2001-02-03T04:05:06Z"}).encode()
    found = decode(model_of(datetime), aware, json.dumps({"x": text}).encode(), parsing=parsing)
    assert found.columns["x"].tolist()[0] == datetime(2001, 2, 3, 4, 5, 6)
    assert found.columns["x"][1] == np.datetime64(moment, "us")


def test_a_naive_time_fails_where_the_contract_wants_an_offset() -> None:
    assert len(decode(model_of(AwareDatetime), b'{"x": "2020-01-01T00:00:00"}').failed) == 1


@pytest.mark.parametrize("parsing", PARSINGS)
def test_absent_fields_take_their_defaults(parsing: str) -> None:
    def count() -> Iterator[int]:
        yield from range(100, 200)

    numbers = count()

    class Model(BaseModel):
        number: int = 7
        made: int = Field(default_factory=lambda: next(numbers))
        colour: Colour = Colour.RED
        blob: bytes = b"\xff"
        nothing: float | None = None
        tags: list[str] = ["t"]
        inner: Inner = Inner(size=9)
        at: datetime = datetime(2020, 1, 1)
        vector: Annotated[list[float], Field(min_length=2, max_length=2)] = [1.0, 2.0]

    columns = decode(Model, b"{}", b'{"number": 8, "blob": "x", "nothing": 1}', parsing=parsing).columns
    assert columns["number"].tolist() == [7, 8]
    assert columns["made"][1] == columns["made"][0] + 1
    assert columns["colour"].tolist() == ["red", "red"]
    assert columns["blob"].tolist() == [b"\xff", b"x"]
    assert columns["nothing"].tolist() == [None, 1.0]
    assert columns["tags"].tolist() == [["t"], ["t"]]
    assert columns["tags"][0] is not columns["tags"][1]
    assert [inner.size for inner in columns["inner"]] == [9, 9]
    assert columns["at"][0] == np.datetime64("2020-01-01")
    assert columns["vector"].tolist() == [[1.0, 2.0], [1.0, 2.0]]


@pytest.mark.parametrize("default", ["text", 2**70, None])
def test_a_default_of_another_type_is_refused_at_the_start(default: object) -> None:
    contract = model_of(Annotated[list[float], Field(min_length=2, max_length=2)], default) if default else None
    with pytest.raises(ConfigError):
        json_decoder(contract or model_of(int, Field(default_factory=str)), columns=frozenset("x"))


def test_only_the_columns_asked_for_are_built_but_all_fields_are_checked() -> None:
    found = decode(Event, b'{"a": 1, "b": 1}', b'{"a": 1, "b": "x"}', columns=frozenset("a"))
    assert list(found.columns) == ["a"]
    assert found.kept.tolist() == [0]


@pytest.mark.parametrize("lenient", [b'{"x": "5"}', b'{"x": 5.0}'])
def test_pydantic_converts_where_strict_refuses(lenient: bytes) -> None:
    assert decode(model_of(int), lenient, parsing="pydantic").columns["x"].tolist() == [5]
    assert len(decode(model_of(int), lenient).failed) == 1


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (Annotated[int, Field(gt=0, lt=3)], b"1", b"3"),
        (Annotated[int, Field(le=2**80, ge=-(2**80))], b"9223372036854775807", b"9223372036854775808"),
        (Annotated[int, Field(multiple_of=5)], b"10", b"11"),
        (Annotated[float, Field(ge=0.5)], b"0.5", b"0.4"),
        (Annotated[str, Field(min_length=2, max_length=3)], b'"ab"', b'"abcd"'),
        (Annotated[str, Field(pattern="^[a-c]+$")], b'"abc"', b'"abc\\n"'),
        (list[Annotated[int, Field(ge=1)]], b"[1]", b"[1, 0]"),
        (list[int], b"[1]", b"[9223372036854775808]"),
        (dict[str, float], b'{"k": 1}', b'{"k": null}'),
        (int | str, b'"x"', b"1.5"),
        (Inner | None, b'{"size": 1}', b'{"size": "x"}'),
        (Literal["a", None], b"null", b'"b"'),
        (Annotated[list[float], Field(min_length=2, max_length=2)], b"[1, 2]", b"[1, 2, 3]"),
    ],
)
@pytest.mark.parametrize("parsing", PARSINGS)
def test_constraints_hold_at_every_level(annotation: Any, good: bytes, bad: bytes, parsing: str) -> None:
    found = decode(model_of(annotation), b'{"x": ' + good + b"}", b'{"x": ' + bad + b"}", parsing=parsing)
    assert found.kept.tolist() == [0]


def test_what_strict_parsing_cannot_represent_is_refused_at_the_start() -> None:
    for annotation in (set[int], list[int] | list[str], Annotated[str, Field(pattern=r"^\p{L}$")]):
        with pytest.raises(ConfigError, match='set parsing="pydantic"'):
            json_decoder(model_of(annotation), columns=frozenset("x"))


def test_a_column_that_is_no_field_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="no field `y`"):
        json_decoder(model_of(int), columns=frozenset("xy"))


def test_a_validator_that_breaks_the_declared_type_fails_its_row_alone() -> None:
    class Model(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def broken(cls, value: int) -> Any:
            return "text" if value == 2 else value

    found = decode(Model, b'{"x": 1}', b'{"x": 2}', b'{"x": 3}', parsing="pydantic")
    assert found.columns["x"].tolist() == [1, 3]
    assert [index for index, _ in found.failed] == [1]


def test_every_field_is_written_under_its_alias_as_its_type() -> None:
    columns: dict[str, Array] = {
        "flag": np.array([True]),
        "count": np.array([3], np.int32),
        "ratio": np.array([2], np.int64),
        "name": texts("a\x00"),
        "blob": texts("é".encode()),
        "at": np.array(["2020-01-01T00:00:00.5"], "M8[ms]"),
        "colour": texts("blue"),
        "level": np.array([2]),
        "vector": np.array([[0.1, 2]], np.float32),
        "tags": texts(["x"]),
        "inner": texts(Inner(size=3)),
        "maybe": np.ma.MaskedArray(np.array([1]), mask=[True]),
        "later": np.array(["NaT"], "M8[us]"),
        "other": np.ma.MaskedArray(np.array([[1, 2]]), mask=True),
    }
    found = encode(Everything, 1, **columns)
    assert found.failed == []
    assert found.values[0] == (
        b'{"flag":true,"count":3,"ratio":2.0,"Name":"a\\u0000","blob":"\xc3\xa9","at":"2020-01-01T00:00:00.500000Z",'
        b'"colour":"blue","level":2,"vector":[0.1,2.0],"tags":["x"],"inner":{"size":3,"label":"none"},"maybe":null,'
        b'"later":null,"other":null}'
    )


@pytest.mark.parametrize(
    ("annotation", "column", "bad"),
    [
        (float, np.array([1, np.nan, np.inf, -np.inf]), [1, 2, 3]),
        (float | None, np.array([1, np.nan, np.inf]), [2]),
        (float, np.ma.MaskedArray([1.0, 2.0], mask=[False, True]), [1]),
        (int, np.array([1, 2**63], np.uint64), [1]),
        (int, np.array([1, 2], np.float64), [0, 1]),
        (Annotated[int, Field(gt=0, le=2)], np.array([0, 1, 2, 3]), [0, 3]),
        (
            Annotated[float | None, Field(ge=0, lt=1)],
            np.ma.MaskedArray([-1.0, 0.0, -1.0, 1.0], mask=[True, False, False, False]),
            [2, 3],
        ),
        (Annotated[int, Field(multiple_of=2)], np.array([2, 3]), [1]),
        (str, texts("a", None, 5, b"x", "\ud800"), [1, 2, 3, 4]),
        (str | None, texts("a", None, 5), [2]),
        (str, texts("a", np.str_("b")), []),
        (bytes, texts(b"a", "a", b"\xff", None), [1, 2, 3]),
        (Literal["a", "b"], texts("a", "c"), [1]),
        (Literal[1, 2] | None, np.ma.MaskedArray([1, 3, 3], mask=[False, False, True]), [1]),
        (Annotated[str, Field(pattern="^a")], texts("a", "b"), [1]),
        (Annotated[str, Field(max_length=1)], texts("a", "ab"), [1]),
        (datetime, np.array(["2020-01-01", "NaT", "10000-01-01", "0000-12-31"], "M8[us]"), [1, 2, 3]),
        (list[int], texts([1], ["x"], None, "x", [2**70]), [1, 2, 3, 4]),
        (list[float], texts([1.0], [float("nan")]), [1]),
        (dict[str, Any], texts({"a": np.float32(1)}, {"a": object()}), [1]),
        (Inner, texts(Inner(), {"size": 1}, {"size": "x"}), [2]),
        (int | str, texts(1, "x", 1.5), [2]),
        (Annotated[list[float], Field(min_length=1, max_length=1)], np.array([[1], [np.nan]]), [1]),
        (Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=1)], np.array([[1], [0]]), [1]),
        (
            Annotated[list[float], Field(min_length=2, max_length=2)] | None,
            np.ma.MaskedArray(np.ones((3, 2)), mask=[[False, False], [True, True], [True, False]]),
            [2],
        ),
        (float, np.ones((2, 2)), [0, 1]),
        (float, texts(1.0, 2.0), [0, 1]),
    ],
)
def test_rows_that_do_not_fit_fail_and_the_others_are_written(annotation: Any, column: Array, bad: list[int]) -> None:
    rows = len(column)
    found = encode(model_of(annotation), rows, x=column)
    assert [index for index, _ in found.failed] == bad
    assert all(reason.endswith(".") for _, reason in found.failed)
    for index in range(rows):
        assert (found.values[index] is None) == (index in bad)
        if index not in bad:
            assert model_of(annotation).model.model_validate_json(found.values[index])


def test_the_first_reason_of_a_row_stays() -> None:
    found = encode(Event, 1, a=np.array([1]), b=np.array([np.nan]), s=texts("\ud800"))
    assert found.failed == [(0, "Column `b` is not finite.")]


def test_a_validator_of_the_output_contract_is_run_on_what_is_written() -> None:
    class Model(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def even(cls, value: int) -> int:
            if value % 2:
                raise ValueError(f"{value} is odd")
            return value

    found = encode(Model, 2, x=np.array([1, 2]))
    assert found.failed == [(0, "`x` does not fit the contract: value_error.")]
    assert found.values.tolist() == [None, b'{"x":2}']


def test_single_precision_is_written_short_and_reads_back_the_same() -> None:
    random = np.random.default_rng(7)
    bits = random.integers(0, 2**32, 20_000, np.uint32).view(np.float32)
    column = np.concatenate(
        [bits[np.isfinite(bits)], random.random(5_000, np.float32), np.array([0.1, -0.0, 1e9], np.float32)]
    )
    found = encode(model_of(float), len(column), x=column)
    written = np.array([json.loads(value)["x"] for value in found.values])
    assert np.array_equal(written.astype(np.float32), column)
    assert found.values[-3] == b'{"x":0.1}'
    assert max(map(len, found.values[-5_003:-3])) <= len('{"x":0.000123456789}') + 4


def test_a_field_without_a_column_is_written_with_its_default() -> None:
    class Model(BaseModel):
        x: int
        y: list[int] = [1]
        blob: bytes = b"b"
        at: datetime = datetime(2020, 1, 1)
        colour: Colour = Colour.RED

    (value,) = encode(Model, 1, x=np.array([1]), unused=np.array([1])).values
    assert value == b'{"x":1,"y":[1],"blob":"b","at":"2020-01-01T00:00:00Z","colour":"red"}'
    assert encode(Contract.of(Inner), 2).values.tolist() == [b'{"size":1,"label":"none"}'] * 2


def test_an_encoder_names_the_columns_it_reads() -> None:
    assert json_encoder(Contract.of(Event), columns=frozenset(("a", "s", "z"))).columns == {"a", "s"}


def test_an_encoder_refuses_what_it_cannot_write_at_the_start() -> None:
    with pytest.raises(ConfigError, match="`a` has neither a column nor a default"):
        json_encoder(Contract.of(Event), columns=frozenset())
    with pytest.raises(ConfigError, match="another name"):
        json_encoder(model_of(Annotated[int, Field(serialization_alias="X")]))


def test_no_row_is_written_for_no_row() -> None:
    found = encode(model_of(float), 0, x=np.empty(0))
    assert (found.values.tolist(), found.failed) == ([], [])
