"""How flights arrived lately, by airport and by carrier: the window that a stream keeps, and the same for all of a year at once.

The value of an entity at a landing: over its arrivals of the three hours up to then, how many there were, their mean delay, and how many
of them were late. `RecentLandings` takes arrivals one by one, in any order; `recent_table` takes them all. Both give the same to the last
bit: sums are of whole numbers, and each quotient is rounded once.

An arrival that comes late counts from then on, and does not change what was said before it came: not in the stream, which cannot, and
not in the table, whose rows are in the order of coming. Training thus sees what serving would have.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, Field

from streamml.topology.duration import seconds
from streamml.topology.features import FeatureSet
from topologies.flight_delay.data import LATE_MINUTES, Flights, Instants, Text
from topologies.flight_delay.features import Table

WINDOW: Final = timedelta(hours=3)
_WINDOW_US: Final = WINDOW // timedelta(microseconds=1)
_MOST_MINUTES: Final = 10_000
_LAST: Final = np.datetime64("2200-01-01", "us")


class Arrival(BaseModel):
    """A flight is at its gate: the records of the topic ``arrivals``, in the order of landing, each flight once.

    Their key is ``dest``, so that the arrivals of an airport keep their order. The topic has one partition, as a carrier's arrivals go to
    many airports: with more, carriers need a topic of their own with the carrier as the key.
    """

    flight_id: str
    carrier: str
    dest: str
    arrived_at: AwareDatetime
    delay: int = Field(strict=True, ge=-_MOST_MINUTES, le=_MOST_MINUTES)  # minutes


@dataclass(frozen=True)
class Arrivals:
    """Columns of arrivals, in the order in which they came; what comes twice counts once."""

    flight_id: Text
    carrier: Text
    dest: Text
    arrived_at: Instants  # UTC, datetime64[us]
    delay: NDArray[np.int64]  # minutes

    def __len__(self) -> int:
        return len(self.flight_id)

    @classmethod
    def of(cls, flights: Flights) -> Arrivals:
        """The arrivals of these flights in the order of landing. A diverted flight has none."""
        known = flights.take(~np.isnat(flights.arrived_at))
        landed = known.take(np.argsort(known.arrived_at, kind="stable"))
        delay = landed.arrival_delay.astype(np.int64)
        return cls(landed.flight_id, landed.carrier, landed.dest, landed.arrived_at, delay)

    @classmethod
    def read(cls, values: Iterable[bytes]) -> Arrivals:
        """The values of a topic's records, in their order.

        Raises:
            pydantic.ValidationError: one is no arrival.
        """
        read = [Arrival.model_validate_json(value) for value in values]
        at = np.array([one.arrived_at.astimezone(UTC).replace(tzinfo=None) for one in read], "M8[us]")
        flight_id, carrier, dest = (
            np.array([getattr(one, name) for one in read], object) for name in ("flight_id", "carrier", "dest")
        )
        return cls(flight_id, carrier, dest, at, np.array([one.delay for one in read], np.int64))

    def take(self, rows: NDArray[Any]) -> Arrivals:
        """The arrivals at these indices, or where this mask is true."""
        return Arrivals(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def between(self, after: np.datetime64, until: np.datetime64) -> Arrivals:
        """Those with ``after < arrived_at <= until``."""
        return self.take((self.arrived_at > after) & (self.arrived_at <= until))

    def events(self) -> Iterator[dict[str, Any]]:
        """As the topic carries them."""
        at = np.datetime_as_string(self.arrived_at, unit="s", timezone="UTC").tolist()
        rows = zip(self.flight_id, self.carrier, self.dest, at, self.delay.tolist(), strict=True)
        for row in rows:
            yield dict(zip(Arrival.model_fields, row, strict=True))

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """The same as Kafka records: key (the airport) and JSON value."""
        for event in self.events():
            yield event["dest"].encode(), json.dumps(event, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Recent:
    """Value of an entity.

    Args:
        event_time: of its last landing.
        landings: how many in the window, at least 1.
        mean_delay: minutes, float64.
        late_share: 0 to 1, float64.
    """

    event_time: datetime
    landings: int
    mean_delay: float
    late_share: float


@dataclass(slots=True)
class RecentLandings:
    """The window of one entity. It ends with the last landing and holds the three hours up to it, no more.

    Whoever feeds it refuses arrivals from the future: one moves the window there, where nothing else counts.
    """

    _newest: datetime | None = field(default=None, init=False)
    _landings: list[tuple[datetime, str, int]] = field(default_factory=list, init=False)  # a heap: the earliest first
    _flights: set[str] = field(default_factory=set, init=False)
    _minutes: int = field(default=0, init=False)
    _late: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._landings)

    def add(self, flight_id: str, arrived_at: datetime, delay: int) -> Literal["counted", "repeated", "too old"]:
        """Take one more arrival.

        Returns:
            What became of it. One that the window holds already is repeated; one of three hours before the last landing, or earlier, is
            too old. Neither changes the value.
        """
        if self._newest is not None and arrived_at <= self._newest - WINDOW:
            return "too old"
        if flight_id in self._flights:
            return "repeated"
        self._newest = arrived_at if self._newest is None else max(self._newest, arrived_at)
        heapq.heappush(self._landings, (arrived_at, flight_id, delay))
        self._flights.add(flight_id)
        self._count(delay, 1)
        while self._landings[0][0] <= self._newest - WINDOW:
            _, gone, minutes = heapq.heappop(self._landings)
            self._flights.discard(gone)
            self._count(minutes, -1)
        return "counted"

    @property
    def value(self) -> Recent | None:
        """As of the last landing; ``None`` before the first."""
        if self._newest is None:
            return None
        count = len(self._landings)
        return Recent(self._newest, count, self._minutes / count, self._late / count)

    @property
    def landings(self) -> list[tuple[datetime, str, int]]:
        """Time, flight and delay of what the window holds, in the order of time: fed to another window, in any order, they give the same."""
        return sorted(self._landings)

    def _count(self, delay: int, sign: int) -> None:
        self._minutes += sign * delay
        self._late += sign * (delay >= LATE_MINUTES)


def recent_table(arrivals: Arrivals, part: Literal["dest", "carrier"]) -> Table:
    """The value of every entity after each of its arrivals: entity by entity, each in the order of coming.

    Args:
        part: column with the entity.
    """
    rows, entity, names = _entities(arrivals, part)
    first = arrivals.arrived_at.astype("M8[us]").min() if len(arrivals) else _LAST
    at = _microseconds(arrivals.arrived_at[rows] - first)
    delay = arrivals.delay[rows]
    # Entities lie behind each other on one axis of time, further apart than a window reaches.
    begins = entity * (np.max(at, initial=0) + 2 * _WINDOW_US)
    newest = np.maximum.accumulate(at + begins)
    # A row counts from its own place on, up to the first whose window begins at it or behind it.
    ends = np.maximum(np.searchsorted(newest, at + begins + _WINDOW_US), np.arange(len(at)))
    landings, minutes, late = (
        _counted(fact, ends) for fact in (np.ones_like(delay), delay, (delay >= LATE_MINUTES).astype(np.int64))
    )
    columns = {"landings": landings, "mean_delay": minutes / landings, "late_share": late / landings}
    return Table(
        {part: names[entity]},
        first + (newest - begins).astype("m8[us]"),
        {name: values.astype(np.float32) for name, values in columns.items()},
    )


def recent_tables(arrivals: Arrivals) -> dict[str, Table]:
    """Both sets by name."""
    return {"airport_recent": recent_table(arrivals, "dest"), "carrier_recent": recent_table(arrivals, "carrier")}


def ttl_of(declared: FeatureSet) -> timedelta:
    """How long a value of this set is fresh."""
    return timedelta(seconds=seconds(declared.ttl or 0.0))


def as_of(table: Table, entity: Text, at: Instants, ttl: timedelta) -> NDArray[np.int64]:
    """The place in the table of each entity's last value that was there at a time: the one of its last landing until then.

    Args:
        table: of `recent_table`.
        entity: ``[n]``.
        at: ``[n]``, when it is asked for.
        ttl: a value whose event time is longer ago is none.

    Returns:
        ``[n]``, -1 for no value.
    """
    (known,) = table.key.values()
    code_of = {name: code for code, name in enumerate(dict.fromkeys(known.tolist()))}
    there = np.array([code_of[name] for name in known.tolist()], np.int64)
    asked = np.array([code_of.get(name, -1) for name in entity.tolist()], np.int64)
    times, when = np.split(np.unique(np.concatenate([table.event_time, at]), return_inverse=True)[1], [len(table)])
    # Entity and time as one number. Rows of one entity and time stay in their order, and the last of them is found.
    most = len(table) + len(at)
    order = np.lexsort((times, there))
    place = np.searchsorted((there * most + times)[order], asked * most + when, side="right") - 1
    found = np.append(order, -1)[place]
    before = np.flatnonzero(found >= 0)
    rows = found[before]
    known_and_fresh = (there[rows] == asked[before]) & (at[before] - table.event_time[rows] <= ttl)
    found[:] = -1
    found[before[known_and_fresh]] = rows[known_and_fresh]
    return found


def _entities(arrivals: Arrivals, part: str) -> tuple[NDArray[np.int64], NDArray[np.int64], Text]:
    """Rows, ordered by entity and then as they came, without those of a flight that the entity has had; each row's entity, as a place
    among the names; the names."""
    entities = getattr(arrivals, part).tolist()
    firsts: dict[tuple[str, str], int] = {}
    for row, pair in enumerate(zip(entities, arrivals.flight_id.tolist(), strict=True)):
        firsts.setdefault(pair, row)
    rows = np.array(list(firsts.values()), np.int64)
    places = {name: place for place, name in enumerate(dict.fromkeys(entities))}
    entity = np.array([places[name] for name, _ in firsts], np.int64)
    order = np.argsort(entity, kind="stable")
    return rows[order], entity[order], np.array([*places, None], object)[:-1]


def _counted(fact: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum at each row over the rows up to it that have not ended."""
    gone = np.zeros(len(fact) + 1, np.int64)
    np.add.at(gone, ends, fact)
    return np.cumsum(fact) - np.cumsum(gone[:-1])


def _microseconds(span: NDArray[np.timedelta64]) -> NDArray[np.int64]:
    return span.astype("m8[us]").astype(np.int64)
