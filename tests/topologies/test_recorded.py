"""A prediction is judged by the features that its worker recorded: those that it can have had, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamml.ports.feature_log import LoggedRows
from topologies.flight_delay import stream
from topologies.flight_delay.arrivals import as_of, recent_tables, ttl_of
from topologies.flight_delay.data import Flights, load_flights
from topologies.flight_delay.recorded import Recorded
from topologies.flight_delay.topology import FEATURE_SETS, airport_recent
from topologies.flight_delay.train import joined

COUNT = 1500
FRESH = ",".join(f"{one.name}@v1" for one in FEATURE_SETS)
DEFAULTED = FRESH.replace("airport_recent@v1", "airport_recent@v1:stale").replace(
    "carrier_recent@v1", "carrier_recent:unavailable"
)


@pytest.fixture(scope="module")
def sample() -> stream.Stream:
    return stream.prepare(COUNT)


@pytest.fixture(scope="module")
def flights() -> Flights:
    return load_flights()


@pytest.fixture(scope="module")
def departures(flights: Flights) -> Flights:
    return flights.in_months(stream.MONTHS).take(np.arange(COUNT))


@pytest.fixture(scope="module")
def recorded(sample: stream.Stream, departures: Flights) -> Recorded:
    return Recorded(departures, sample.tables, sample.arrivals)


def log(columns: dict[str, Any], text: str) -> LoggedRows:
    """Of the first events, in their order, as a worker writes it."""
    stored = {name: columns[name].copy() for one in FEATURE_SETS for name in one.outputs}
    rows = len(columns["flight_id"])
    return LoggedRows(np.arange(rows), None, np.zeros(rows, np.int64), (text,), stored)


def test_what_training_would_have_joined_is_right(
    sample: stream.Stream, departures: Flights, recorded: Recorded
) -> None:
    tables = {**sample.tables, **recent_tables(sample.arrivals)}
    columns = joined(departures, tables)
    has_both = (columns["airport_recent.landings"] > 0) & (columns["carrier_recent.landings"] > 0)
    expected = recorded.expected(np.arange(COUNT), log(columns, FRESH))
    assert (expected[has_both] == stream.expected_probabilities(departures, tables)[has_both]).all()
    # Defaults that nobody has flagged are wrong.
    assert np.isnan(expected[~has_both]).all()
    assert 0.2 < has_both.mean() < 1


def test_defaults_are_right_where_a_flag_says_so(
    sample: stream.Stream, departures: Flights, recorded: Recorded
) -> None:
    columns = joined(departures, sample.tables)
    assert (recorded.expected(np.arange(COUNT), log(columns, DEFAULTED)) == sample.expected).all()
    assert np.isnan(recorded.expected(np.arange(COUNT), log(columns, FRESH))).all()


def test_the_value_of_an_earlier_landing_is_right_while_it_is_fresh(
    sample: stream.Stream, departures: Flights, recorded: Recorded
) -> None:
    """An app that is behind wrote it, and not yet the next."""
    tables = {**sample.tables, **recent_tables(sample.arrivals)}
    columns = joined(departures, tables)
    table, ttl = tables["airport_recent"], ttl_of(airport_recent)
    place = as_of(table, departures.dest, departures.departed_at, ttl)
    before = np.maximum(place - 1, 0)
    age = departures.departed_at - table.event_time[before]
    fresh = (place > 0) & (table.key["dest"][before] == departures.dest) & (age <= np.timedelta64(ttl))
    fresh &= columns["carrier_recent.landings"] > 0
    given = log(columns, FRESH)
    for name, values in table.columns.items():
        given.columns[f"airport_recent.{name}"][:] = values[before]
    expected = recorded.expected(np.arange(COUNT), given)
    assert fresh.sum() > 100
    assert not np.isnan(expected[fresh]).any()
    assert np.isnan(expected[~fresh & (place > 0)]).mean() > 0.9


@pytest.mark.parametrize(
    "column", ["weather.temp", "route.flights", "airport_recent.mean_delay", "carrier_recent.landings"]
)
def test_a_value_that_is_a_little_off_is_wrong(
    sample: stream.Stream, departures: Flights, recorded: Recorded, column: str
) -> None:
    columns = joined(departures, {**sample.tables, **recent_tables(sample.arrivals)})
    given = log(columns, FRESH)
    off = np.nextafter(given.columns[column], np.float32(np.inf))
    given.columns[column][:] = off
    assert np.isnan(recorded.expected(np.arange(COUNT), given)).all()


def test_a_value_from_the_future_is_wrong(sample: stream.Stream, departures: Flights, recorded: Recorded) -> None:
    """What landed later is in the topic of arrivals, and still in no departure's features."""
    half = departures.take(np.arange(COUNT // 2))
    tables = {**sample.tables, **recent_tables(sample.arrivals)}
    given = log(joined(half, tables), FRESH)
    hours_later = np.full(len(half), departures.departed_at[-1])
    table = tables["airport_recent"]
    place = as_of(table, half.dest, hours_later, ttl_of(airport_recent))
    for name, values in table.columns.items():
        given.columns[f"airport_recent.{name}"][:] = values[place]
    expected = recorded.expected(np.arange(len(half)), given)
    # An airport may have had the same values before.
    assert np.isnan(expected[place >= 0]).mean() > 0.9
