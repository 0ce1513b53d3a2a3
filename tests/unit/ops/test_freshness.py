"""How fresh fast features were, as the demo counts it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamml.engine.identity import Provenance
from streamml.ops.demo.freshness import Freshness, Outage, fates_of

BEGUN = 1_800_000_000.0
KILLED = BEGUN + 10.0


def test_flags_say_what_came_of_each_set() -> None:
    told = "route@v3,weather@v9:missing,airport_recent@live-1:from_future,carrier_recent:unavailable,late"
    assert fates_of(told) == {
        "route": "",
        "weather": "missing",
        "airport_recent": "from_future",
        "carrier_recent": "unavailable",
    }


def counted(fate: Callable[[float], str], until: float = 20.0) -> Freshness:
    """A hundred predictions a second, every second of them of a flight that no fresh value can be had for."""
    found = Freshness({"recent": {"a"}})
    for number in range(round(until * 100)):
        second = number / 100 + 0.005
        flags = f"route@v1,recent@live-1{fate(second)}"
        for flight, said in (("a", flags), ("b", "recent@live-1:stale")):
            made = Provenance("topic/0/1", "model@1", 0, said)
            found.add([{"flight_id": flight, "made": made, "came": BEGUN + second}])
    return found


def stale_between(since: float, until: float) -> Callable[[float], str]:
    return lambda second: ":stale" if since <= second < until else ""


def test_what_no_writer_could_keep_fresh_is_counted_apart() -> None:
    found = counted(stale_between(3.0, 4.0), 4.0)
    assert found.shares(BEGUN, BEGUN + 4.0) == {"recent": {"quiet": 0.5, "fresh": 0.375, "stale": 0.125}}
    lately = found.lately(BEGUN + 4.0)["recent"]
    assert lately["shares"] == {"stale": 0.5, "quiet": 0.5}
    assert lately["course"][-10:] == [None, None, *[1.0] * 6, 0.0, 0.0]


def test_a_replay_says_nothing_of_now() -> None:
    found = Freshness({"recent": {"a"}})
    made = Provenance("topic/0/1", "model@1", 1, "recent@live-1")
    found.add([{"flight_id": "a", "made": made, "came": BEGUN}])
    assert found.shares(BEGUN - 1.0, BEGUN + 1.0) == {"recent": {}}


def test_an_outage_is_told_from_the_kill_to_fresh_values() -> None:
    outage = counted(stale_between(11.0, 15.0)).outage("recent", KILLED, BEGUN + 20.0)
    assert outage.over(10.0)
    assert outage.fresh_before == outage.fresh_after == 1.0
    assert outage.flagged_after_s == pytest.approx(1.3, abs=0.1001)
    assert outage.fresh_again_after_s == pytest.approx(5.3, abs=0.1001)
    assert outage.flagged == pytest.approx(1.0, abs=0.1)


def test_an_outage_is_told_as_far_as_it_is_known() -> None:
    found = counted(stale_between(11.0, 99.0))
    short = found.outage("recent", KILLED, KILLED + 0.6)
    assert short == Outage(1.0)
    assert not short.over(0.6)
    lasting = found.outage("recent", KILLED, BEGUN + 20.0)
    assert lasting.flagged_after_s is not None
    assert (lasting.fresh_again_after_s, lasting.fresh_after, lasting.over(10.0)) == (None, None, False)


def test_values_that_outlive_the_outage_are_not_flagged() -> None:
    lasting = counted(stale_between(0.0, 0.0)).outage("recent", KILLED, BEGUN + 20.0)
    assert lasting == Outage(1.0)
    assert lasting.over(10.0)


def test_what_was_not_fresh_before_is_away_until_it_is_fresh() -> None:
    outage = counted(stale_between(0.0, 14.0)).outage("recent", KILLED, BEGUN + 20.0)
    assert (outage.fresh_before, outage.flagged_after_s) == (0.0, 0.5)
    assert outage.fresh_again_after_s == pytest.approx(4.2, abs=0.1001)


def test_sets_are_fresh_when_half_of_the_latest_predictions_say_so() -> None:
    found = counted(stale_between(3.0, 6.0), 6.0)
    assert found.are_fresh(BEGUN + 4.0)
    assert not found.are_fresh(BEGUN + 5.5)
    assert not found.are_fresh(BEGUN + 60.0)
