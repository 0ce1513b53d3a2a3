"""The JSON codec under random records: batches change nothing, repeated keys are found exactly, columns come back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from streamml.adapters.codecs.json import json_decoder, json_encoder
from streamml.adapters.codecs.json_duplicates import QuoteFloor, flaws
from streamml.adapters.codecs.json_structs import record_type
from streamml.batch.column import Array, object_array
from streamml.schema.contract import Contract


class Inner(BaseModel):
    a: int = 1
    b: str | None = None


class Event(BaseModel):
    a: int
    b: str
    c: str | None
    d: float = 0.5
    e: str = "e"
    f: str | None = None
    g: Inner = Inner()
    h: dict[str, Any] = Field(default_factory=dict)


EVENT = Contract.of(Event)
ALL = frozenset(EVENT.columns)
NAMES = ("a", "b", "c", "d", "e", "f", "g", "h", "x", '"', "\\", "\\u0061", "")


class Pairs(list[tuple[tuple[str, bool], Any]]):
    """A JSON object: ((key, whether to escape it), value), in order, repeated keys included."""


def spelled(text: str, escape: bool) -> str:
    """JSON text; every character as an escape where asked for."""
    return '"' + "".join(f"\\u{ord(one):04x}" for one in text) + '"' if escape else json.dumps(text, ensure_ascii=False)


def written(value: Any) -> str:
    """JSON of a drawn value."""
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{spelled(*key)}: {written(one)}" for key, one in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return spelled(*value) if isinstance(value, tuple) else str(value)


def repeats(record: bytes) -> bool:
    """The plain reference: whether any object of ``record`` repeats a key."""
    found = []

    def hook(pairs: list[tuple[str, Any]]) -> None:
        found.append(len({key for key, _ in pairs}) < len(pairs))

    json.loads(record, object_pairs_hook=hook, parse_int=str)
    return any(found)


texts = st.tuples(st.text(st.sampled_from('ab"\\é\n/{'), max_size=4), st.booleans())
keys = st.tuples(st.sampled_from(NAMES), st.booleans())
numbers = st.sampled_from(["1", "-0", "2.5", "1e400", "9" * 30, "9" * 5000, "true", "null"])
values = st.recursive(
    texts | numbers,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(keys, inner), max_size=3).map(Pairs),
    max_leaves=6,
)
fitting = {
    "a": st.sampled_from(["1", "-7", "9223372036854775807", "9223372036854775808", "true", "1.0"]),
    "b": texts,
    "c": texts | st.just("null"),
    "d": st.sampled_from(["1", "2.5", "1e400"]),
    "e": texts,
    "f": texts | st.just("null"),
    "g": st.sampled_from([Pairs(), Pairs([(("a", False), "2")]), Pairs([(("a", False), "9" * 19)])]),
    "h": st.lists(st.tuples(keys, values), max_size=3).map(Pairs),
}
pairs_that_fit = st.one_of([st.tuples(st.tuples(st.just(name), st.booleans()), one) for name, one in fitting.items()])
required = st.tuples(*(st.tuples(st.tuples(st.just(name), st.booleans()), fitting[name]) for name in "abc"))


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """A record that mostly fits, perhaps with unknown fields and repeated keys."""
    pairs = list(draw(required))
    pairs += draw(st.lists(pairs_that_fit | st.tuples(keys, values), max_size=3))
    return written(Pairs(draw(st.permutations(pairs)))).encode()


garbage = st.binary(max_size=6) | st.sampled_from(
    [b"", b"{}", b"null", b'{"a":9},{"a":8}', b'{"a":1', b'"b":2}', b'{"a":1,"b":"","c":null,"z":"\xff"}']
)


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """An event with something inserted, cut off, or put behind it."""
    record = draw(events())
    place = draw(st.integers(0, len(record)))
    odd = draw(
        st.sampled_from([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00", b'"', b"}", b"\\ud800", b",", b"NaN", b" "])
    )
    return draw(
        st.sampled_from([record[:place] + odd + record[place:], record[:place], record[place:], record + b"," + record])
    )


deep = st.sampled_from([1, 100, 20_000]).map(
    lambda depth: b'{"a":1,"b":"","c":null,"x":' + b"[" * depth + b"]" * depth + b"}"
)
huge = st.integers(0, 200_000).map(lambda size: b'{"a":1,"b":"' + b"x" * size + b'","c":null}')
hostile = mangled() | garbage | deep | huge


def strict(**options: Any) -> Any:
    return json_decoder(EVENT, columns=ALL, **options)


@given(
    st.lists(events() | hostile, max_size=12),
    st.sampled_from(["strict", "pydantic"]),
    st.sampled_from(["reject", "last"]),
)
def test_a_batch_decodes_as_its_records_do_one_by_one(records: list[bytes], parsing: str, duplicate_keys: str) -> None:
    decoder = strict(parsing=parsing, duplicate_keys=duplicate_keys)
    together = decoder.decode(object_array(records, len(records)))
    alone = [decoder.decode(object_array([record], 1)) for record in records]
    assert together.kept.tolist() == [index for index, one in enumerate(alone) if not one.failed]
    assert list(together.failed) == [(index, one.failed[0][1]) for index, one in enumerate(alone) if one.failed]
    for name, column in together.columns.items():
        assert column.tolist() == [value for one in alone for value in one.columns[name].tolist()]


@given(st.lists(events(), min_size=1, max_size=12))
@example([b'{"a":1,"b":"\\u0022\\u0022","c":null,"x":1,"x":1}'])
@example([b'{"a":1,"b":"\\\\\\"","c":null,"\\u0061":1}', b'{"a":1,"b":"","c":""}'])
@pytest.mark.parametrize("parsing", ["strict", "pydantic"])
def test_exactly_the_records_that_repeat_a_key_are_refused_for_it(parsing: str, records: list[bytes]) -> None:
    batch = object_array(records, len(records))
    loose = strict(parsing=parsing, duplicate_keys="last").decode(batch)
    exact = strict(parsing=parsing).decode(batch)
    accepted = loose.kept.tolist()
    assert exact.kept.tolist() == [index for index in accepted if not repeats(records[index])]
    refused = {index: reason for index, reason in exact.failed if index in accepted}
    assert set(refused.values()) <= {"Record repeats a key."}


@given(st.lists(st.lists(st.tuples(keys, values), max_size=5).map(Pairs).map(written).map(str.encode), max_size=8))
def test_repeated_keys_are_found_exactly_in_any_json(records: list[bytes]) -> None:
    assert sorted(flaws(records)) == [index for index, record in enumerate(records) if repeats(record)]


@pytest.mark.parametrize("parsing", ["strict", "pydantic"])
def test_one_repeated_key_is_found_wherever_it_is_among_many_records(parsing: str) -> None:
    good = b'{"a": 1, "b": "x", "c": null}'
    for place in (0, 255, 256, 700):
        records = [good] * 701
        records[place] = b'{"a": 1, "b": "x", "c": null, "c": null}'
        found = strict(parsing=parsing).decode(object_array(records, 701))
        assert [index for index, _ in found.failed] == [place]


def test_only_records_with_more_than_their_fields_are_looked_at_exactly() -> None:
    ordinary = [
        b'{"a": 1, "b": "x", "c": null}',
        b'{"a": 1, "b": "x", "c": "y", "d": 1, "e": "z", "f": null}',
        b'{"\\u0061": 1, "b": "\\u0022", "c": "", "f": ""}',
    ]
    odd = [b'{"a": 1, "b": "x", "c": null, "x": 1}', b'{"a": 1, "b": "\\"", "c": null}']
    records = ordinary + odd
    rows = list(map(msgspec.json.Decoder(record_type(EVENT)).decode, records))
    assert QuoteFloor(EVENT.fields).suspects(records, rows) == [3, 4]


class Plain(BaseModel):
    a: int
    b: str
    c: str | None
    d: float = 0.5
    e: str = "e"
    f: str | None = None
    g: Inner = Inner()


PLAIN = Contract.of(Plain)
BROKEN = re.compile("[\ud800-\udfff]")  # halves of characters, which no bytes stand for


def fits(kind: type, value: Any) -> bool:
    """The rules of strict parsing, spelt out: no conversion but of whole numbers to floats; finite; 64 bits."""
    if kind is int:
        return type(value) is int and -(2**63) <= value < 2**63
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind


def repeats_or_is_no_json(record: bytes) -> bool:
    try:
        return repeats(record.decode(errors="replace").encode())
    except (ValueError, RecursionError):
        return True


def refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def strictly(record: bytes) -> dict[str, Any] | None:
    """A plain reference: what a record says, ``None`` where it is no `Plain`."""
    try:
        found = json.loads(record.decode(), parse_constant=refused, parse_int=lambda digits: int(digits[:4000]))
    except (ValueError, RecursionError):
        return None
    if (
        repeats(record)
        or BROKEN.search(json.dumps(found, ensure_ascii=False))
        or not isinstance(found, dict)
        or not {"a", "b", "c"} <= found.keys()
    ):
        return None
    inner = {"a": 1, "b": None} | found["g"] if isinstance(found.get("g", {}), dict) and "g" in found else None
    made = {"d": 0.5, "e": "e", "f": None} | found
    good = fits(int, made["a"]) and fits(float, made["d"]) and all(fits(str, made[name]) for name in "be")
    good = good and all(made[name] is None or fits(str, made[name]) for name in "cf")
    if "g" in found:
        good = good and inner is not None and fits(int, inner["a"]) and (inner["b"] is None or fits(str, inner["b"]))
    return {name: made[name] for name in "abcdef"} if good else None


def leniently(record: bytes) -> dict[str, Any] | None:
    """The same by pydantic's own rules; numbers that no column holds are refused there too."""
    try:
        record.decode()
        found = Plain.model_validate_json(record).model_dump()
    except ValueError:
        return None
    numbers = (found["a"], found["g"]["a"])
    good = not repeats(record) and all(fits(int, number) for number in numbers) and fits(float, found["d"])
    return {name: found[name] for name in "abcdef"} if good else None


@given(st.lists(events() | hostile, max_size=8))
@pytest.mark.parametrize("duplicate_keys", ["reject", "last"])
@pytest.mark.parametrize(("parsing", "reference"), [("strict", strictly), ("pydantic", leniently)])
def test_what_is_accepted_and_what_it_says_is_what_a_plain_reference_finds(
    parsing: Literal["strict", "pydantic"],
    reference: Callable[[bytes], dict[str, Any] | None],
    duplicate_keys: Literal["reject", "last"],
    records: list[bytes],
) -> None:
    if duplicate_keys == "last":
        records = [record for record in records if not repeats_or_is_no_json(record)]
    decoder = json_decoder(PLAIN, columns=frozenset("abcdef"), parsing=parsing, duplicate_keys=duplicate_keys)
    decoded = decoder.decode(object_array(records, len(records)))
    found = {index: said for index, record in enumerate(records) if (said := reference(record)) is not None}
    assert decoded.kept.tolist() == list(found)
    for name in "abcdef":
        assert decoded.columns[name].tolist() == [said[name] for said in found.values()]


class Row(BaseModel):
    flag: bool
    whole: int
    ratio: float
    name: str
    blob: bytes
    at: datetime
    colour: Literal["red", "blue"]
    vector: Annotated[list[float], Field(min_length=2, max_length=2)]
    some: int | None
    free: Any


ROW = Contract.of(Row)
finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]))
int64 = st.integers(-(2**63), 2**63 - 1)
columns_of_rows = st.lists(
    st.tuples(
        st.booleans(),
        int64,
        finite,
        text,
        text.map(str.encode),
        st.datetimes(),
        st.sampled_from(["red", "blue"]),
        st.lists(finite, min_size=2, max_size=2),
        st.none() | int64,
        st.none() | text | int64 | st.lists(text, max_size=2),
    ),
    max_size=5,
)


def column(values: list[Any], index: int) -> Array:
    """Values as a column of the field at ``index``."""
    declared = list(ROW.columns.values())[index]
    if declared.nullable:
        filled = [0 if value is None and declared.kind == "i8" else value for value in values]
        data = object_array(filled, len(values)).astype(declared.dtype)
        return np.ma.MaskedArray(data, mask=np.array([value is None for value in values], np.bool_))
    if declared.dtype == object:
        return object_array(values, len(values))
    return np.array(values, declared.dtype).reshape(len(values), *declared.shape)


@given(columns_of_rows, st.sampled_from(["strict", "pydantic"]))
def test_what_is_encoded_decodes_to_the_same_columns(
    rows: list[tuple[Any, ...]], parsing: Literal["strict", "pydantic"]
) -> None:
    columns = {name: column([row[index] for row in rows], index) for index, name in enumerate(ROW.columns)}
    encoded = json_encoder(ROW).encode(columns, len(rows))
    assert encoded.failed == []
    decoded = json_decoder(ROW, columns=frozenset(columns), parsing=parsing).decode(encoded.values)
    assert decoded.failed == []
    for name, sent in columns.items():
        assert decoded.columns[name].tolist() == sent.tolist()
        assert decoded.columns[name].dtype == sent.dtype
