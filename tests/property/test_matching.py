"""Rows of a comparison end as what they are, against a plain model of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import duckdb
from hypothesis import given
from hypothesis import strategies as st

from streamml.ops.replay.comparison import Counts
from streamml.ops.replay.matching import match
from streamml.ops.replay.predictions import NO_CHILD, OutputField

FIELDS = (
    OutputField("risk", "f0", "number", False),
    OutputField("label", "f1", "text", False),
    OutputField("parts", "f2", "vector", False),
)
TYPES = "f0 DOUBLE, f1 VARCHAR, f2 DOUBLE[]"
TOLERANCE = 0.01


class Row(NamedTuple):
    """Values of a prediction."""

    risk: float | None
    label: str | None
    parts: list[float] | None


Id = tuple[int, int]
NUMBERS = st.sampled_from([None, 0.0, 0.005, 0.5, 0.504, 100.0, 100.5, 102.0, -1.0])
VECTORS = st.sampled_from([None, [], [0.0], [0.005], [1.0, 1.0], [1.0, 1.005], [1.0, 2.0]])
ROWS = st.builds(Row, NUMBERS, st.sampled_from([None, "", "a"]), VECTORS)
IDS = st.tuples(st.integers(0, 3), st.sampled_from([NO_CHILD, 0, 1]))
SIDES = st.dictionaries(IDS, ROWS, max_size=8)
LETTERS = st.sets(IDS, max_size=4)
CHANGES = st.one_of(
    NUMBERS.map(lambda one: {"risk": one}),
    st.sampled_from([{"label": "a"}, {}]),
    VECTORS.map(lambda one: {"parts": one}),
)


@st.composite
def both_sides(draw: st.DrawFn) -> tuple[dict[Id, Row], dict[Id, Row]]:
    """Two sides; rows of both differ in one field at most."""
    run, other = draw(SIDES), draw(SIDES)
    shared = draw(st.sets(st.sampled_from(sorted(run)))) if run else set()
    changed: dict[Id, Row] = {id: run[id]._replace(**draw(CHANGES)) for id in sorted(shared)}
    return run, {**other, **changed}


def alike(one: Row, two: Row) -> bool:
    """The model of what is the same."""
    if one.label != two.label or (one.risk is None) != (two.risk is None):
        return False
    was, now = one.risk or 0.0, two.risk or 0.0
    if abs(was - now) > TOLERANCE * max(1, abs(was), abs(now)):
        return False
    if one.parts is None or two.parts is None or len(one.parts) != len(two.parts):
        return one.parts == two.parts
    return math.dist(one.parts, two.parts) <= TOLERANCE * max(1, math.hypot(*two.parts))


def modelled(run: Mapping[Id, Row], other: Mapping[Id, Row], ours: set[Id], theirs: set[Id]) -> Counts:
    """The same counts without a database."""

    def failed(id: Id, letters: set[Id]) -> bool:
        return id in letters or (id[0], NO_CHILD) in letters

    both = run.keys() & other.keys()
    same = sum(alike(run[id], other[id]) for id in both)
    return Counts(
        same=same,
        changed=len(both) - same,
        missing=sum(not failed(id, ours) for id in other.keys() - run.keys()),
        extra=sum(not failed(id, theirs) for id in run.keys() - other.keys()),
        dead_lettered=len(ours - theirs),
        recovered=len(theirs - ours),
        still_dead_lettered=len(ours & theirs),
    )


def fill(connection: Any, name: str, rows: Mapping[Id, Row]) -> None:
    connection.execute(
        f"CREATE TABLE {name} (topic_no TINYINT, part INTEGER, place BIGINT, child INTEGER, revision BIGINT, key BLOB, ts BIGINT, "
        f"at_partition INTEGER, at_offset BIGINT, odd BLOB, {TYPES})"
    )
    for (place, child), row in rows.items():
        connection.execute(
            f"INSERT INTO {name} VALUES (0, 0, ?, ?, 0, NULL, 0, 0, 0, NULL, ?, ?, ?)", [place, child, *row]
        )


def fill_letters(connection: Any, name: str, letters: set[Id]) -> None:
    connection.execute(
        f"CREATE TABLE {name} (topic_no TINYINT, part INTEGER, place BIGINT, child INTEGER, step VARCHAR, error VARCHAR)"
    )
    for place, child in letters:
        connection.execute(f"INSERT INTO {name} VALUES (0, 0, ?, ?, 's', 'e')", [place, child])


@given(both_sides(), LETTERS, LETTERS)
def test_d3_every_row_is_counted_as_the_model_says(
    sides: tuple[dict[Id, Row], dict[Id, Row]], ours: set[Id], theirs: set[Id]
) -> None:
    """D3: and a run with a condition misses nothing."""
    run, other = sides
    with duckdb.connect() as connection:
        fill(connection, "run", run)
        fill(connection, "other", other)
        fill_letters(connection, "run_letters", ours)
        fill_letters(connection, "other_letters", theirs)
        expected = modelled(run, other, ours, theirs)
        assert match(connection, FIELDS, TOLERANCE, partial=False) == expected
        connection.execute("DROP TABLE pairs; DROP TYPE outcome")
        found = asdict(match(connection, FIELDS, TOLERANCE, partial=True))
        assert found["missing"] == 0
        assert {name: found[name] for name in ("same", "changed", "extra")} == {
            name: getattr(expected, name) for name in ("same", "changed", "extra")
        }
