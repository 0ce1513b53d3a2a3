"""What each departure should get, judged from outside of any worker: by the loaded features, which are known before, and by the recent ones
that its prediction says it used, which depend on how far the app was."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamml.ops.demo.freshness import fates_of
from streamml.ports.feature_log import LoggedRows
from topologies.flight_delay.arrivals import Arrivals, recent_tables, ttl_of
from topologies.flight_delay.data import Flights, Text
from topologies.flight_delay.features import Table
from topologies.flight_delay.recorded import Recorded
from topologies.flight_delay.topology import RECENT, RECENT_SETS

_CLOSE: Final = 1e-4
_LOOK_BACK: Final = 40
_DEFAULTS: Final = tuple(np.array([declared.default for declared in RECENT.values()], np.float32).tolist())

Value = tuple[float, ...]
"""Columns of a recent set."""


class Expected:
    """Departures by number, and which probabilities of being late are right for each.

    A prediction is right that the model makes of the departure, its loaded features, and recent values as the feature log has them,
    where each of those is one that the entity had by then and that was fresh, or the flagged defaults. One that no row of the log
    explains, as its worker was killed before it was logged, or as a replay made it, may use any such value.
    """

    def __init__(self, departures: Flights, tables: Mapping[str, Table], arrivals: Arrivals) -> None:
        """
        Args:
            tables: of the loaded sets.
            arrivals: as they were published.
        """
        self._recorded = Recorded(departures, tables, arrivals)
        self._at = departures.departed_at.astype("M8[us]").astype(np.int64)
        self._entities: list[Text] = [getattr(departures, one.key[0]) for one in RECENT_SETS]
        self._ttl_us = [int(ttl_of(one).total_seconds() * 1e6) for one in RECENT_SETS]
        found = recent_tables(arrivals)
        self._history = [_by_entity(found[one.name], one.key[0]) for one in RECENT_SETS]
        self._logged: dict[int, list[float]] = {}

    def logged(self, events: NDArray[np.int64], rows: LoggedRows) -> None:
        """Rows of the feature log, and the event of each, ``[n]``."""
        answers = self._recorded.expected(events, rows)
        for event, answer in zip(events.tolist(), answers.tolist(), strict=True):
            self._logged.setdefault(event, []).append(answer)

    def is_right(self, event: int, probability: float, flags: str, *, unlogged: bool) -> bool | None:
        """Whether this is a prediction that the event may get; ``None`` where its row of the log has not come yet.

        Args:
            unlogged: whether the log need not have it.
        """
        known = self._logged.get(event)
        if known and any(abs(answer - probability) < _CLOSE for answer in known):
            return True
        if unlogged:
            return self._explains(event, probability, flags)
        return False if known else None

    def _explains(self, event: int, probability: float, flags: str) -> bool:
        """Whether any fresh value of then gives this."""
        fates = fates_of(flags)
        choices = [
            [_DEFAULTS] if fates.get(declared.name) else list(self._fresh(number, event))[-_LOOK_BACK:]
            for number, declared in enumerate(RECENT_SETS)
        ]
        rows = list(product(*choices))
        if not rows:
            return False
        recent = {
            f"{declared.name}.{column}": np.array([row[number][place] for row in rows], np.float32)
            for number, declared in enumerate(RECENT_SETS)
            for place, column in enumerate(RECENT)
        }
        found = self._recorded.probabilities(np.full(len(rows), event), recent)
        return bool((np.abs(found - probability) < _CLOSE).any())

    def _fresh(self, number: int, event: int) -> dict[Value, None]:
        """Values that an entity had until the departure and that were not too old by then, in their order."""
        history = self._history[number].get(self._entities[number][event])
        if history is None:
            return {}
        times, values = history
        at = self._at[event]
        first, last = np.searchsorted(times, at - self._ttl_us[number]), np.searchsorted(times, at, side="right")
        return dict.fromkeys(values[first:last])


def _by_entity(table: Table, key: str) -> dict[str, tuple[NDArray[np.int64], list[Value]]]:
    """Event times, µs, and values of each entity, in the order of coming."""
    names = table.key[key].tolist()
    times = table.event_time.astype("M8[us]").astype(np.int64)
    values = list(zip(*(table.columns[column].tolist() for column in RECENT), strict=True))
    ends = [at for at in range(1, len(names)) if names[at] != names[at - 1]]
    return {
        names[first]: (times[first:last], values[first:last])
        for first, last in zip([0, *ends], [*ends, len(names)], strict=True)
        if first < last
    }
