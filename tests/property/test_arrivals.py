"""What a stream keeps of arrivals is what is computed of all of them at once, whatever order they come in; and nothing knows the future."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from topologies.flight_delay.arrivals import WINDOW, Arrivals, Recent, RecentLandings, as_of, recent_table
from topologies.flight_delay.features import Table

BEGIN = datetime(2013, 10, 1, tzinfo=UTC)
TTL = timedelta(hours=3)
Flight = tuple[str, str, datetime, int]

MOMENTS = st.integers(0, 9 * 4).map(lambda quarters: BEGIN + timedelta(minutes=15 * quarters))
FLIGHTS = st.lists(
    st.tuples(st.integers(0, 60).map(str), st.sampled_from(["ORD", "LAX", ""]), MOMENTS, st.integers(-60, 300)),
    max_size=40,
    unique_by=lambda flight: flight[0],
)


@st.composite
def deliveries(draw: st.DrawFn) -> list[Flight]:
    """Flights in any order, some of them again and again."""
    flights = draw(FLIGHTS)
    again = draw(st.lists(st.sampled_from(flights), max_size=20)) if flights else []
    return draw(st.permutations([*flights, *again]))


def arrivals(flights: Sequence[Flight]) -> Arrivals:
    ids, airports, times, delays = zip(*flights, strict=True) if flights else ((), (), (), ())
    texts = [np.array([*column, None], object)[:-1] for column in (ids, airports)]
    at = np.array([moment.replace(tzinfo=None) for moment in times], "M8[us]")
    return Arrivals(texts[0], texts[1], texts[1], at, np.array(delays, np.int64))


def streamed(flights: Sequence[Flight]) -> list[tuple[str, Recent]]:
    """The airport's value after each delivery."""
    windows: dict[str, RecentLandings] = {}
    said = []
    for flight, airport, at, delay in flights:
        window = windows.setdefault(airport, RecentLandings())
        window.add(flight, at, delay)
        assert window.value is not None
        said.append((airport, window.value))
    return said


def rows(table: Table) -> list[tuple[object, ...]]:
    columns = (table.key["dest"], table.event_time, *table.columns.values())
    return list(zip(*(column.tolist() for column in columns), strict=True))


def as_rows(said: Sequence[tuple[str, Recent]]) -> list[tuple[object, ...]]:
    made = []
    for airport, one in said:
        values = np.array([one.landings, one.mean_delay, one.late_share], np.float32)
        made.append((airport, one.event_time.replace(tzinfo=None), *values.tolist()))
    return made


@given(deliveries())
def test_a_stream_says_after_each_arrival_what_the_table_says(flights: list[Flight]) -> None:
    """Bit for bit, in any order, and however often an arrival is delivered."""
    seen: set[str] = set()
    first = [flight[0] not in seen and not seen.add(flight[0]) for flight in flights]  # type: ignore[func-returns-value]
    said = [one for one, is_first in zip(as_rows(streamed(flights)), first, strict=True) if is_first]
    in_table_order = sorted(said, key=lambda row: [flight[1] for flight in flights].index(str(row[0])))
    assert rows(recent_table(arrivals(flights), "dest")) == in_table_order


@given(FLIGHTS)
def test_a_value_is_what_a_loop_over_the_window_says(flights: list[Flight]) -> None:
    """In the order of landing, of every event time the last value that was written for it."""
    landed = sorted(flights, key=lambda flight: flight[2])
    for (airport, one), now in zip(streamed(landed), range(1, len(landed) + 1), strict=True):
        until = one.event_time
        within = [f[3] for f in landed[:now] if f[1] == airport and until - WINDOW < f[2] <= until]
        assert (one.landings, one.mean_delay) == (len(within), sum(within) / len(within))
        assert one.late_share == sum(minutes >= 15 for minutes in within) / len(within)


@given(deliveries(), st.randoms(use_true_random=False))
def test_the_last_value_does_not_depend_on_the_order(flights: list[Flight], dice: object) -> None:
    shuffled = list(flights)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert dict(streamed(flights)) == dict(streamed(shuffled))


@given(deliveries())
def test_what_is_delivered_again_changes_nothing(flights: list[Flight]) -> None:
    """Neither at once nor after all others, as a consumer that was killed gets it."""
    assert dict(streamed([*flights, *flights])) == dict(streamed(flights))
    assert rows(recent_table(arrivals([*flights, *flights]), "dest")) == rows(recent_table(arrivals(flights), "dest"))


@given(deliveries(), MOMENTS)
def test_an_arrival_after_a_moment_never_changes_what_is_joined_then(flights: list[Flight], moment: datetime) -> None:
    """No future leaks: with all that landed later, and without it, the join at a moment gives the same."""
    landed = sorted(flights, key=lambda flight: flight[2])
    assert joined(landed, moment) == joined([flight for flight in landed if flight[2] <= moment], moment)


@given(deliveries(), MOMENTS)
def test_in_any_order_no_delay_of_a_later_arrival_is_in_what_is_joined(flights: list[Flight], moment: datetime) -> None:
    """An arrival that came before its time withdraws values that were not said yet, but is in none."""
    other = [(*flight[:3], flight[3] if flight[2] <= moment else 9_999) for flight in flights]
    assert joined(flights, moment) == joined(other, moment)


@given(deliveries(), MOMENTS)
def test_the_join_is_what_a_stream_had_written_until_then(flights: list[Flight], moment: datetime) -> None:
    """Of an airport the value of its last landing until the moment, unless that is longer ago than the ttl."""
    landed = sorted(flights, key=lambda flight: flight[2])
    there = dict(streamed([flight for flight in landed if flight[2] <= moment]))
    fresh = {airport: one for airport, one in there.items() if moment - one.event_time <= TTL}
    assert joined(landed, moment) == set(as_rows(list(fresh.items())))


def joined(flights: Sequence[Flight], moment: datetime) -> set[tuple[object, ...]]:
    airports = np.array(["ORD", "LAX", "", "JFK"], object)
    table = recent_table(arrivals(flights), "dest")
    at = np.full(len(airports), moment.replace(tzinfo=None), "M8[us]")
    found = as_of(table, airports, at, TTL)
    assert [table.key["dest"][place] for place in found if place >= 0] == airports[found >= 0].tolist()
    return {rows(table)[place] for place in found if place >= 0}


@given(deliveries())
def test_a_window_holds_its_three_hours_and_no_more(flights: list[Flight]) -> None:
    window = RecentLandings()
    for flight, _, at, delay in flights:
        window.add(flight, at, delay)
        assert window.value is not None
        assert len(window) == window.value.landings == len(window.landings)
        assert all(
            window.value.event_time - WINDOW < landed <= window.value.event_time for landed, *_ in window.landings
        )


@given(deliveries())
def test_a_window_is_made_anew_from_its_landings(flights: list[Flight]) -> None:
    """What was kept of a window stands for it: from there on both say the same."""
    window = RecentLandings()
    for number, (flight, _, at, delay) in enumerate(flights):
        if number == len(flights) // 2:
            kept, window = window.landings, RecentLandings()
            for when, name, minutes in reversed(kept):
                window.add(name, when, minutes)
        window.add(flight, at, delay)
    whole = streamed([(flight, "ORD", at, delay) for flight, _, at, delay in flights])
    assert not flights or window.value == dict(whole)["ORD"]


def test_what_became_of_an_arrival_is_told_and_what_has_left_the_window_is_forgotten() -> None:
    window, hour = RecentLandings(), timedelta(hours=1)
    told = [window.add(flight, BEGIN + hours * hour, 5) for flight, hours in (("a", 0), ("a", 0), ("b", 3), ("c", 0))]
    assert told == ["counted", "repeated", "counted", "too old"]
    assert window.add("a", BEGIN + 4 * hour, 5) == "counted"
    assert [flight for _, flight, _ in window.landings] == ["b", "a"]


def test_arrivals_come_back_from_their_records() -> None:
    made = arrivals([("2013-10-01-UA-1-EWR", "ORD", BEGIN, -3), ("2013-10-01-UA-2-EWR", "LAX", BEGIN, 20)])
    keys, values = zip(*made.records(), strict=True)
    again = Arrivals.read(values)
    assert keys == (b"ORD", b"LAX")
    assert list(again.events()) == list(made.events())
    assert values[0] == (
        b'{"flight_id":"2013-10-01-UA-1-EWR","carrier":"ORD","dest":"ORD","arrived_at":"2013-10-01T00:00:00Z","delay":-3}'
    )
