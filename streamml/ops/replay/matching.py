"""Rows of both sides matched by prediction id: the table ``pairs``, in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from streamml.ops.replay.comparison import Counts
from streamml.ops.replay.predictions import NO_CHILD, OutputField

_ID: Final = "topic_no, part, place, child"
_LETTERS: Final = f"""
    UPDATE pairs SET status = '{{status}}' WHERE status = '{{was}}' AND rowid IN (
        SELECT one.rowid FROM pairs one JOIN {{letters}} letter
        ON one.topic_no = letter.topic_no AND one.part = letter.part AND one.place = letter.place
        -- A record that failed before it was exploded has one letter for all its children.
        AND (letter.child = one.child OR letter.child = {NO_CHILD})
        WHERE one.status = '{{was}}'
    )"""


def match(connection: Any, fields: Sequence[OutputField], tolerance: float, *, partial: bool) -> Counts:
    """Make the table ``pairs`` of the tables ``run``, ``other``, ``run_letters`` and ``other_letters``, which it leaves alone.

    It has, besides the id and the columns of the run's record, ``status``, and of each field ``b_f0`` (before) and ``a_f0``.

    Args:
        partial: the run has a condition, so rows of the other side that it lacks are none of its own.
    """
    both = ", ".join(f"other.{one.column} AS b_{one.column}, run.{one.column} AS a_{one.column}" for one in fields)
    same = " AND ".join(["run.odd IS NOT DISTINCT FROM other.odd", *(_same(one, tolerance) for one in fields)])
    connection.execute(
        "CREATE TYPE outcome AS ENUM ('same', 'changed', 'missing', 'extra', 'dead_lettered', 'recovered')"
    )
    connection.execute(
        f"""
        CREATE TABLE pairs AS SELECT {_ID},
            CASE WHEN run.ts IS NULL THEN 'missing' WHEN other.ts IS NULL THEN 'extra' WHEN {same} THEN 'same'
            ELSE 'changed' END::outcome AS status,
            COALESCE(run.ts, other.ts) AS ts, COALESCE(run.key, other.key) AS key,
            run.at_partition AS at_partition, run.at_offset AS at_offset{", " + both if both else ""}
        FROM run FULL JOIN other USING ({_ID})"""
    )
    connection.execute(_LETTERS.format(status="dead_lettered", was="missing", letters="run_letters"))
    connection.execute(_LETTERS.format(status="recovered", was="extra", letters="other_letters"))
    if partial:
        connection.execute("DELETE FROM pairs WHERE status = 'missing'")
    return _counts(connection, partial=partial)


def _counts(connection: Any, *, partial: bool) -> Counts:
    found = dict(connection.execute("SELECT status::VARCHAR, count(*) FROM pairs GROUP BY ALL").fetchall())
    joined = f"FROM {{}} one {{}} JOIN {{}} two USING ({_ID})"

    def letters(one: str, kind: str, two: str) -> int:
        return int(connection.execute(f"SELECT count(*) {joined.format(one, kind, two)}").fetchone()[0])

    recovered = found.get("recovered", 0) if partial else letters("other_letters", "ANTI", "run_letters")
    return Counts(
        **{name: found.get(name, 0) for name in ("same", "changed", "missing", "extra")},
        dead_lettered=letters("run_letters", "ANTI", "other_letters"),
        recovered=recovered,
        still_dead_lettered=letters("run_letters", "SEMI", "other_letters"),
    )


def _same(field: OutputField, tolerance: float) -> str:
    return f"({same(field, f'other.{field.column}', f'run.{field.column}', tolerance)})"


def same(field: OutputField, one: str, two: str, tolerance: float) -> str:
    """A condition in SQL: whether two values of a field are the same within the tolerance."""
    equal = f"{one} IS NOT DISTINCT FROM {two}"
    if field.kind == "number" and tolerance:
        near = f"abs({one} - {two}) <= {tolerance!r} * greatest(1, abs({one}), abs({two}))"
        return f"{equal} OR COALESCE({near}, false)"
    if field.kind == "vector" and tolerance:
        size = f"greatest(1, sqrt(list_inner_product({one}, {one})))"
        near = f"list_distance({one}, {two}) <= {tolerance!r} * {size}"
        return f"{equal} OR CASE WHEN len({one}) = len({two}) AND len({one}) > 0 THEN {near} ELSE false END"
    return equal
