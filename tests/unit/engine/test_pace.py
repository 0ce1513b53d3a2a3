"""How many records may be taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamml.engine.pace import Pace


@given(st.floats(0.5, 5000), st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 400)), max_size=60))
def test_no_more_are_taken_than_the_rate_and_a_tenth_of_a_second_allow(
    rate: float, asked: list[tuple[float, int]]
) -> None:
    pace, now, taken = Pace(rate, 0.0), 0.0, 0
    for waited, wanted in asked:
        now += waited
        rows = pace.rows(now, wanted)
        assert 0 <= rows <= wanted
        pace.took(rows)
        taken += rows
        assert taken <= rate * now + 1.0 + rate * 0.1 + 1e-6


@pytest.mark.parametrize("rate", [0.5, 7.0, 1000.0])
def test_who_asks_often_gets_the_whole_rate(rate: float) -> None:
    pace, taken = Pace(rate, 0.0), 0
    for turn in range(1, 10_001):
        rows = pace.rows(turn / 100, 4096)
        pace.took(rows)
        taken += rows
    assert taken == pytest.approx(rate * 100, abs=max(2.0, rate * 0.11))


def test_nothing_is_taken_while_it_is_held_and_without_a_rate_all_is() -> None:
    pace = Pace(None, 0.0)
    assert pace.rows(1.0, 4096) == 4096
    pace.held = "the live group is behind"
    assert pace.rows(2.0, 4096) == 0
    pace.held = ""
    assert pace.rows(3.0, 4096) == 4096
