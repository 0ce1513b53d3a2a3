"""Windows that were read from the middle of the topic: what they claim to know is what the whole topic says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies.flight_delay.arrivals import Arrival
from topologies.flight_delay.recent_state import ALWAYS, SETS, NotAnArrival, RecentState, read_arrival

BEGAN = datetime(2013, 10, 1, tzinfo=UTC)
minutes = st.integers(0, 12 * 60)
entities = st.sampled_from("ABC")
arrivals = st.lists(
    st.builds(
        lambda number, carrier, dest, at, delay: Arrival(
            flight_id=str(number), carrier=carrier, dest=dest, arrived_at=BEGAN + timedelta(minutes=at), delay=delay
        ),
        st.integers(0, 50),
        entities,
        entities,
        minutes,
        st.integers(-60, 200),
    ),
    max_size=60,
    # A flight that comes twice arrived once.
    unique_by=lambda one: one.flight_id,
).flatmap(lambda once: st.permutations(once + once[:5]))


@given(arrivals, st.data())
def test_what_is_complete_is_right_wherever_the_reading_began(records: list[Arrival], data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(records)))
    end = data.draw(st.integers(begin, len(records)))
    whole, part = RecentState(), RecentState(max((one.arrived_at for one in records[:begin]), default=ALWAYS))
    whole.add(records[:end])
    part.add(records[begin:end])
    for column in SETS:
        known = part.complete[column]
        assert part.columns(column, known) == whole.columns(column, known)


@given(arrivals, st.data())
def test_what_changed_and_is_not_known_says_how_far_to_look_back(records: list[Arrival], data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(records)))
    floor = max((one.arrived_at for one in records[:begin]), default=ALWAYS)
    part = RecentState(floor)
    touched = part.add(records[begin:])
    lacks = part.lacks(touched)
    known = all(touched[column] <= part.complete[column] for column in SETS)
    assert (lacks is None) == known
    if lacks is not None:
        again = RecentState(lacks)
        again.add(records)
        assert again.lacks(touched) is None


@given(st.binary(max_size=60), st.none() | st.integers(0, 2**41))
def test_any_bytes_are_an_arrival_or_a_dead_letter(value: bytes, timestamp: int | None) -> None:
    with pytest.raises(NotAnArrival):
        read_arrival(value, timestamp)


@given(st.none() | st.integers(-(2**63), 2**63 - 1), st.datetimes(timezones=st.just(UTC)))
def test_a_landing_counts_where_its_record_can_say_that_it_has_been(timestamp: int | None, landed: datetime) -> None:
    """Whatever a broker takes for a time, and a calendar has."""
    value = b'{"flight_id":"x","carrier":"UA","dest":"ORD","arrived_at":"%s","delay":5}' % landed.isoformat().encode()
    try:
        read = read_arrival(value, None if timestamp is None or timestamp < 0 else timestamp)
    except NotAnArrival:
        return
    assert read.arrived_at == landed
    assert 1970 <= landed.year < 2200
    assert timestamp is None or timestamp < 0 or landed.timestamp() * 1000 <= timestamp + 600_000


@given(st.integers(2**43, 2**63 - 1))
def test_a_record_of_no_calendars_time_is_a_dead_letter(timestamp: int) -> None:
    value = b'{"flight_id":"x","carrier":"UA","dest":"ORD","arrived_at":"2013-10-01T05:00:00Z","delay":5}'
    assert read_arrival(value, 2**42).dest == "ORD"
    with pytest.raises(NotAnArrival, match="after 2199"):
        read_arrival(value, timestamp)
