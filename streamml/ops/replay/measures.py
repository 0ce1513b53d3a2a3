"""What the table ``pairs`` says, measured in SQL; nothing is held here but what goes into a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from streamml.ops.replay.comparison import (
    HIDDEN,
    QUANTILES,
    Change,
    Distribution,
    FieldChange,
    Flip,
    Histogram,
    Hour,
    KeyChange,
    Mover,
    Turn,
    Value,
)
from streamml.ops.replay.matching import same
from streamml.ops.replay.predictions import NO_CHILD, OutputField

_BINS: Final = 40
_MOVERS: Final = 10
_KEYS: Final = 20
_HOURS: Final = 1000
_VALUES: Final = 12
# A text of more values is a name rather than a class, and a list of the most frequent says nothing.
_FEW: Final = 1000
_EXACT_ROWS: Final = 4_000_000
_HOUR_MS: Final = 3_600_000
_ORDERED: Final = ("number", "whole")
# A side that has no row has no null either.
_BEFORE: Final = "status NOT IN ('extra', 'recovered')"
_AFTER: Final = "status NOT IN ('missing', 'dead_lettered')"


class Measures:
    """Asks one comparison's tables.

    Args:
        names: of the topics that ids begin with, by ``topic_no``.
        keys_shown: whether keys may be shown.
    """

    def __init__(
        self,
        connection: Any,
        fields: Sequence[OutputField],
        tolerance: float,
        names: Sequence[str],
        *,
        keys_shown: bool,
    ) -> None:
        self._connection = connection
        self._fields = fields
        self._tolerance = tolerance
        self._names = names
        self._keys_shown = keys_shown
        rows = self._one("SELECT count(*) FROM pairs")[0]
        # Exact ones hold every value in memory; a t-digest is within a hundredth of a percentile of them.
        self._quantile = "quantile_cont" if rows <= _EXACT_ROWS else "approx_quantile"

    def fields(self) -> tuple[FieldChange, ...]:
        return tuple(self._field(one) for one in self._fields)

    def flips(self, thresholds: Mapping[str, float]) -> tuple[tuple[Flip, ...], int]:
        """Of each threshold, and how many rows crossed at least one."""
        by_name = {one.name: one.column for one in self._fields}
        crossed = [
            (
                name,
                limit,
                f"b_{by_name[name]} < {limit!r} AND a_{by_name[name]} >= {limit!r}",
                f"b_{by_name[name]} >= {limit!r} AND a_{by_name[name]} < {limit!r}",
            )
            for name, limit in thresholds.items()
        ]
        if not crossed:
            return (), 0
        counted = ", ".join(f"count(*) FILTER ({up}), count(*) FILTER ({down})" for *_, up, down in crossed)
        some = " OR ".join(f"({up}) OR ({down})" for *_, up, down in crossed)
        *numbers, flipped = self._one(f"SELECT {counted}, count(*) FILTER ({some}) FROM pairs")
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return tuple(Flip(name, limit, *both) for (name, limit, *_), both in zip(crossed, pairs, strict=True)), flipped

    def keys(self, field: OutputField | None) -> tuple[KeyChange, ...]:
        """By key of the record, or by the value of a field after the replay."""
        if field is None and not self._keys_shown:
            return ()
        key = "key" if field is None else f"COALESCE(a_{field.column}, b_{field.column})::VARCHAR"
        rows = self._all(
            f"""
            WITH worst AS (
                SELECT {key} AS name, count(*) FILTER (status = 'changed') AS changed, count(*) AS unlike
                FROM pairs WHERE status <> 'same' GROUP BY ALL ORDER BY unlike DESC, name LIMIT {_KEYS}
            ), every AS (
                SELECT {key} AS name, count(*) AS rows FROM pairs
                WHERE {key} IN (SELECT name FROM worst) OR {key} IS NULL GROUP BY ALL
            )
            SELECT worst.name, rows, changed, unlike - changed
            FROM worst JOIN every ON worst.name IS NOT DISTINCT FROM every.name ORDER BY unlike DESC, worst.name"""
        )
        return tuple(KeyChange(_text(name), *counts) for name, *counts in rows)

    def hours(self) -> tuple[Hour, ...]:
        """In order; of more than a thousand those with the most rows, as times may be anything."""
        numbers = [one for one in self._fields if one.kind in _ORDERED and not one.secret]
        means = "".join(f", avg(b_{one.column}), avg(a_{one.column})" for one in numbers)
        rows = self._all(
            f"""
            SELECT ts // {_HOUR_MS} AS hour, count(*) FILTER (status = 'same'), count(*) FILTER (status = 'changed'),
                count(*) FILTER (status NOT IN ('same', 'changed')){means}
            FROM pairs GROUP BY hour ORDER BY count(*) DESC, hour LIMIT {_HOURS}"""
        )
        names = [one.name for one in numbers]
        return tuple(
            Hour(hour * _HOUR_MS, alike, changed, other, _paired(names, found))
            for hour, alike, changed, other, *found in sorted(rows)
        )

    def letters(self) -> dict[str, int]:
        """Newly dead-lettered rows by ``step: error``."""
        rows = self._all(
            "SELECT one.step || ': ' || one.error AS reason, count(*) AS many FROM run_letters one "
            "ANTI JOIN other_letters USING (topic_no, part, place, child) GROUP BY reason ORDER BY many DESC, reason"
        )
        return {str(reason): many for reason, many in rows}

    # -- one field

    def _field(self, field: OutputField) -> FieldChange:
        before, after = f"b_{field.column}", f"a_{field.column}"
        condition = same(field, before, after, self._tolerance)
        changed = self._one(f"SELECT count(*) FROM pairs WHERE status = 'changed' AND NOT ({condition})")[0]
        told = FieldChange(field.name, field.kind, field.secret, changed)
        if field.secret or field.kind in ("vector", "other"):
            return told
        if field.kind not in _ORDERED:
            return FieldChange(
                field.name,
                field.kind,
                False,
                changed,
                values=self._values(before, after),
                turns=self._turns(before, after),
            )
        one, two = self._distribution(before, _BEFORE), self._distribution(after, _AFTER)
        return FieldChange(
            field.name,
            field.kind,
            False,
            changed,
            one,
            two,
            self._change(before, after),
            self._histogram(before, after, one, two),
            self._movers(before, after),
        )

    def _distribution(self, column: str, there: str) -> Distribution:
        count, nulls, mean, deviation, least, largest = self._one(
            f"SELECT count({column}), count(*) - count({column}), avg({column}), stddev_pop({column}), min({column}), "
            f"max({column}) FROM pairs WHERE {there}"
        )
        quantiles: tuple[float, ...] = ()
        if count:
            quantiles = tuple(self._one(f"SELECT {self._quantile}({column}, {list(QUANTILES)}) FROM pairs")[0])
        return Distribution(count, nulls, mean, deviation, _number(least), _number(largest), quantiles)

    def _change(self, before: str, after: str) -> Change:
        gap = f"abs({after} - {before})"
        rows, mean, mean_absolute, largest = self._one(
            f"SELECT count({gap}), avg({after} - {before}), avg({gap}), max({gap}) FROM pairs"
        )
        p95 = self._one(f"SELECT {self._quantile}({gap}, 0.95) FROM pairs")[0]
        return Change(rows, mean, mean_absolute, _number(p95), _number(largest))

    def _histogram(self, before: str, after: str, one: Distribution, two: Distribution) -> Histogram | None:
        ends = [end for end in (one.least, one.largest, two.least, two.largest) if end is not None]
        if not ends:
            return None
        low, high = min(ends), max(ends)
        width = (high - low) / _BINS or 1.0 / _BINS
        sides = []
        for column in (before, after):
            rows = self._all(
                f"SELECT least({_BINS - 1}, floor(({column} - {low!r}) / {width!r}))::INTEGER AS bin, count(*) FROM pairs "
                f"WHERE {column} IS NOT NULL GROUP BY bin"
            )
            found = dict(rows)
            sides.append(tuple(found.get(bin, 0) for bin in range(_BINS)))
        return Histogram(tuple(low + width * bin for bin in range(_BINS + 1)), *sides)

    def _movers(self, before: str, after: str) -> tuple[Mover, ...]:
        rows = self._all(
            f"SELECT topic_no, part, place, child, key, ts, {before}, {after} FROM pairs WHERE {before} <> {after} "
            f"ORDER BY abs({after} - {before}) DESC, part, place, child LIMIT {_MOVERS}"
        )
        found = [
            Mover(self._id(*place), _text(key) if self._keys_shown else HIDDEN, ts, was, now)
            for *place, key, ts, was, now in rows
        ]
        # DuckDB 2.0 picks the right rows, and from a large table gives them in the order of the table.
        return tuple(sorted(found, key=lambda one: (-abs(one.after - one.before), one.id)))

    def _values(self, before: str, after: str) -> tuple[Value, ...]:
        if self._one(f"SELECT approx_count_distinct({after}) FROM pairs")[0] > _FEW:
            return ()
        rows = self._all(
            f"""
            SELECT value, count(*) FILTER (before) AS before, count(*) FILTER (NOT before) AS after FROM (
                SELECT {before}::VARCHAR AS value, true AS before FROM pairs WHERE {_BEFORE}
                UNION ALL SELECT {after}::VARCHAR, false FROM pairs WHERE {_AFTER}
            ) GROUP BY value ORDER BY count(*) DESC, value LIMIT {_VALUES}"""
        )
        return tuple(Value(*row) for row in rows)

    def _turns(self, before: str, after: str) -> tuple[Turn, ...]:
        rows = self._all(
            f"SELECT {before}::VARCHAR AS was, {after}::VARCHAR AS now, count(*) AS many FROM pairs "
            f"WHERE status = 'changed' AND {before} IS DISTINCT FROM {after} "
            f"GROUP BY was, now ORDER BY many DESC, was, now LIMIT {_VALUES}"
        )
        return tuple(Turn(*row) for row in rows)

    def _id(self, topic_no: int, part: int, place: int, child: int) -> str:
        return f"{self._names[topic_no]}/{part}/{place}" + ("" if child == NO_CHILD else f"#{child}")

    def _one(self, query: str) -> Any:
        return self._connection.execute(query).fetchone()

    def _all(self, query: str) -> list[Any]:
        return list(self._connection.execute(query).fetchall())


def _paired(names: Sequence[str], means: Sequence[float | None]) -> dict[str, tuple[float | None, float | None]]:
    return dict(zip(names, zip(means[::2], means[1::2], strict=True), strict=True))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _text(value: Any) -> str | None:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
