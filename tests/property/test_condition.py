"""A condition is true of the rows of which SQL says so, whatever is missing."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamml.batch.column import ColumnType, object_array
from streamml.ops.replay.condition import condition

COLUMNS = {name: ColumnType.parse(f"{kind}?") for name, kind in {"x": "f8", "n": "i8", "t": "text"}.items()}
NUMBERS = ("-1", "0", "1", "2")
TEXTS = ("'a'", "'b'")
COMPARED = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
Both = tuple[str, str]
"""A condition, and the same in SQL."""

columns = st.sampled_from(["x", "n", "x + n", "x * 2"])
compared = st.builds(
    lambda one, op, other: (f"{one} {op} {other}", f"{one} {COMPARED[op]} {other}"),
    columns,
    st.sampled_from(list(COMPARED)),
    st.one_of(columns, st.sampled_from(NUMBERS)),
)
texts = st.builds(
    lambda op, other: (f"t {op} {other}", f"t {COMPARED[op]} {other}"),
    st.sampled_from(list(COMPARED)),
    st.sampled_from(TEXTS),
)
among = st.builds(
    lambda name, negated, items: (
        f"{name} {negated}in ({', '.join(items)},)",
        f"{name} {negated.upper()}IN ({', '.join(items)})",
    ),
    st.sampled_from(["x", "n"]),
    st.sampled_from(["", "not "]),
    st.lists(st.sampled_from([*NUMBERS, "n", "x"]), min_size=1, max_size=3),
)
nothing = st.builds(
    lambda name, negated: (f"{name} is {negated}None", f"{name} IS {negated.upper()}NULL"),
    st.sampled_from(["x", "n", "t"]),
    st.sampled_from(["", "not "]),
)


def larger(smaller: st.SearchStrategy[Both]) -> st.SearchStrategy[Both]:
    joined = st.builds(
        lambda one, word, other: tuple(f"({a}) {word} ({b})" for a, b in zip(one, other, strict=True)),
        smaller,
        st.sampled_from(["and", "or"]),
        smaller,
    )
    return st.one_of(joined, smaller.map(lambda one: (f"not ({one[0]})", f"NOT ({one[1]})")))


conditions = st.recursive(st.one_of(compared, texts, among, nothing), larger, max_leaves=8)
rows = st.lists(
    st.tuples(
        st.sampled_from([None, -1.0, 0.0, 1.0, 2.0]),
        st.sampled_from([None, -1, 0, 1, 2]),
        st.sampled_from([None, "a", "b"]),
    ),
    min_size=1,
    max_size=30,
)


def column(name: str, values: list[Any]) -> Any:
    if COLUMNS[name].kind == "text":
        data: Any = object_array(values, len(values))
    else:
        data = np.array([0 if one is None else one for one in values], COLUMNS[name].dtype)
    return np.ma.masked_array(data, [one is None for one in values])


def picked(text: str, given_rows: list[tuple[Any, ...]], *, nan: bool = False) -> list[int]:
    found = condition(text, COLUMNS)
    values = {name: column(name, [row[at] for row in given_rows]) for at, name in enumerate(COLUMNS)}
    if nan:
        values["x"] = np.array([np.nan if row[0] is None else row[0] for row in given_rows])
    return np.flatnonzero(found.function({name: values[name] for name in found.columns})).tolist()


def by_sql(text: str, given_rows: list[tuple[Any, ...]]) -> list[int]:
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE rows (x REAL, n INTEGER, t TEXT)")
        database.executemany("INSERT INTO rows VALUES (?, ?, ?)", given_rows)
        return [row - 1 for (row,) in database.execute(f"SELECT rowid FROM rows WHERE {text} ORDER BY rowid")]


@given(conditions, rows)
def test_a_condition_is_true_where_sql_says_so(both: Both, given_rows: list[tuple[Any, ...]]) -> None:
    assert picked(both[0], given_rows) == by_sql(both[1], given_rows)


@given(conditions.filter(lambda both: "x is" not in both[0]), rows)
def test_nan_is_as_unknown_as_what_is_missing(both: Both, given_rows: list[tuple[Any, ...]]) -> None:
    assert picked(both[0], given_rows, nan=True) == by_sql(both[1], given_rows)
