"""What is known of the latest arrivals at one place of the topic: a pure function of the records before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from pydantic import ValidationError

from streamml.topology.features import FeatureSet
from topologies.flight_delay.arrivals import WINDOW, Arrival, Recent, RecentLandings
from topologies.flight_delay.topology import airport_recent, carrier_recent

Part = Literal["dest", "carrier"]
Touched = dict[Part, set[str]]
"""Entities, by the column that holds them."""

SETS: Final[Mapping[Part, FeatureSet]] = {"dest": airport_recent, "carrier": carrier_recent}
ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Before every arrival: of a state that has read its topic from the first record on."""
_LAST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_FAST_CLOCK: Final = timedelta(minutes=10)


class NotAnArrival(ValueError):
    """A record that is a dead letter; the message quotes nothing of it."""


def read_arrival(value: bytes, timestamp_ms: int | None) -> Arrival:
    """The arrival in a record's value.

    Args:
        timestamp_ms: the record's time, ms since 1970 UTC; ``None`` where it has none.

    Raises:
        NotAnArrival: it is none, or one that has not been yet: it would move the windows to where nothing else counts.
    """
    try:
        arrival = Arrival.model_validate_json(value)
    except ValidationError as error:
        raise NotAnArrival(_told(error)) from None
    if not ALWAYS + WINDOW <= arrival.arrived_at < _LAST:
        raise NotAnArrival("arrived_at: it is before 1970 or after 2199, when nothing is recorded here.")
    if timestamp_ms is not None and timestamp_ms >= _LAST.timestamp() * 1000:
        raise NotAnArrival("the record's own time is after 2199, so that it does not say whether this has been yet.")
    if timestamp_ms is not None and arrival.arrived_at > ALWAYS + timedelta(milliseconds=timestamp_ms) + _FAST_CLOCK:
        raise NotAnArrival("arrived_at: it is later than the record, and no flight is reported before it has arrived.")
    if not arrival.dest or not arrival.carrier:
        raise NotAnArrival("dest, carrier: an arrival has both.")
    return arrival


def _told(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'record'}: {one['msg']}" for one in found) + "."


class RecentState:
    """The windows of all airports and carriers.

    It may have begun in the middle of the topic. ``floor`` says what that costs: no record before its beginning is later. A window
    that begins there or later is thus complete, whatever was left out.
    """

    def __init__(self, floor: datetime = ALWAYS) -> None:
        self._floor = floor
        self._windows: dict[Part, dict[str, RecentLandings]] = {part: {} for part in SETS}

    def add(self, arrivals: Iterable[Arrival]) -> Touched:
        """Take the next arrivals of the topic; returns entities of which the value may have changed."""
        touched: Touched = {part: set() for part in SETS}
        for arrival in arrivals:
            for part, windows in self._windows.items():
                entity = getattr(arrival, part)
                window = windows.get(entity)
                if window is None:
                    window = windows[entity] = RecentLandings()
                if window.add(arrival.flight_id, arrival.arrived_at, arrival.delay) == "counted":
                    touched[part].add(entity)
        return touched

    @property
    def complete(self) -> Touched:
        """Every entity of which the value is known."""
        return {
            part: {entity for entity, window in windows.items() if _begins(window) >= self._floor}
            for part, windows in self._windows.items()
        }

    def lacks(self, touched: Touched) -> datetime | None:
        """The floor that would make these entities complete; ``None``: they are."""
        begins = [_begins(self._windows[part][entity]) for part, entities in touched.items() for entity in entities]
        earliest = min(begins, default=self._floor)
        return earliest if earliest < self._floor else None

    def columns(self, part: Part, entities: Iterable[str]) -> dict[str, Any]:
        """The values of these entities as `FeatureWriter.write` takes them."""
        names = sorted(entities)
        values = [_value(self._windows[part][name]) for name in names]
        return {
            part: names,
            "event_time": [value.event_time for value in values],
            **{column: [getattr(value, column) for value in values] for column in SETS[part].columns},
        }


def _begins(window: RecentLandings) -> datetime:
    return _value(window).event_time - WINDOW


def _value(window: RecentLandings) -> Recent:
    value = window.value
    assert value is not None  # A window is made for an arrival, which it counts.
    return value
