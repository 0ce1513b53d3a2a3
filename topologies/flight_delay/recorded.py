"""What a prediction should be, given the features that its worker recorded in the feature log.

Recent arrivals are there when they are there, so no two runs need to see the same of them. What a worker may have seen is known all the
same: a value that its airport or carrier had at one of the landings that were fresh at departure, or the defaults, and a flag that says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamml.ops.demo.freshness import fates_of
from streamml.ports.feature_log import LoggedRows
from streamml.topology.features import FeatureSet
from topologies.flight_delay.arrivals import Arrivals, as_of, recent_tables, ttl_of
from topologies.flight_delay.data import Flights
from topologies.flight_delay.features import Table
from topologies.flight_delay.topology import FEATURE_SETS, model_inputs
from topologies.flight_delay.train import FOLDER, joined


class Recorded:
    """Judges what was recorded; every part of it is computed outside of any worker."""

    def __init__(self, departures: Flights, tables: Mapping[str, Table], arrivals: Arrivals) -> None:
        """
        Args:
            departures: the events, by number.
            tables: loaded feature sets.
            arrivals: those that were published, in their order.
        """
        from onnxruntime import InferenceSession

        self._session = InferenceSession(str(FOLDER / "model.onnx"))
        # Of the sets of recent arrivals these are the defaults.
        self._columns = joined(departures, tables)
        self._recent = recent_tables(arrivals)

    def expected(self, events: NDArray[np.int64], logged: LoggedRows) -> NDArray[np.float32]:
        """Probability of being late that each event should get with these features, ``[n]``; NaN where it cannot have had them.

        Args:
            events: number of the event in each row of the log.
        """
        own = {name: column[events] for name, column in self._columns.items()}
        possible = np.ones(len(events), bool)
        for declared in FEATURE_SETS:
            same = _equal(logged.columns, own, declared.outputs)
            if declared.kind == "streaming":
                said = self._was_said(declared, own, logged)
                same = np.where(_defaulted(declared.name, logged), same, said)
            possible &= same
        return np.where(possible, self.probabilities(events, logged.columns), np.float32(np.nan))

    def probabilities(self, events: NDArray[np.int64], features: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """What the model says of these events, ``[n]``, with these features in place of the loaded ones and the defaults."""
        x = model_inputs({**{name: column[events] for name, column in self._columns.items()}, **features})["x"]
        answer: NDArray[np.float32] = self._session.run(["probabilities"], {"x": x})[0][:, 1]
        return answer

    def _was_said(
        self, declared: FeatureSet, events: Mapping[str, NDArray[Any]], logged: LoggedRows
    ) -> NDArray[np.bool_]:
        """Whether each value is one that its entity had at a landing that was fresh at the departure."""
        table, (key,), at, ttl = self._recent[declared.name], declared.key, events["departed_at"], ttl_of(declared)
        found = np.zeros(len(at), bool)
        place = as_of(table, events[key], at, ttl)
        rows = np.flatnonzero(place >= 0)
        # Values of an entity lie one behind the other, the latest last.
        while len(rows):
            given = {name: logged.columns[f"{declared.name}.{name}"][rows] for name in declared.columns}
            had = {name: table.columns[name][place[rows]] for name in declared.columns}
            found[rows] = _equal(given, had, declared.columns)
            place[rows] -= 1
            rows = rows[~found[rows] & (place[rows] >= 0)]
            rows = rows[
                (table.key[key][place[rows]] == events[key][rows])
                & (at[rows] - table.event_time[place[rows]] <= np.timedelta64(ttl))
            ]
        return found


def _defaulted(name: str, logged: LoggedRows) -> NDArray[np.bool_]:
    """Rows whose flags say that this set gave defaults."""
    return np.array([bool(fates_of(text).get(name)) for text in logged.texts], bool)[logged.text]


def _equal(
    some: Mapping[str, NDArray[Any]], others: Mapping[str, NDArray[Any]], names: Iterable[str]
) -> NDArray[np.bool_]:
    """Rows that have the same in all these columns."""
    equal: NDArray[np.bool_] = np.logical_and.reduce([some[name] == others[name] for name in names])
    return equal
