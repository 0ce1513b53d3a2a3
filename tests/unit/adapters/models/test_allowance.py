"""Calls keep to their rate, and costs to their cap, whatever is asked and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamml.adapters.models.allowance import Allowance

DAY = 86_400.0


@given(st.lists(st.floats(0, 5), min_size=2, max_size=50), st.floats(0.1, 50))
def test_turns_are_an_interval_apart_and_no_later_than_needed(pauses: list[float], rate: float) -> None:
    allowance, now, turns = Allowance(rate=rate), 100.0, [float("-inf")]
    for pause in pauses:
        now += pause
        turns.append(now + allowance.turn(now))
        assert turns[-1] >= turns[-2] + 1 / rate - 1e-6
        assert turns[-1] <= max(now, turns[-2] + 1 / rate) + 1e-6


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, DAY)), max_size=60))
def test_no_day_costs_more_than_the_cap(asked: list[tuple[int, float]]) -> None:
    allowance, now, began, spent = Allowance(cost=0.1, cost_cap=5.0), 0.0, None, 0.0
    for rows, pause in asked:
        now += pause
        if began is None or began + DAY - now <= 0:
            began, spent = now, 0.0
        wait = allowance.spend(rows, now)
        if wait:
            assert spent + rows * 0.1 > 5.0
            assert 0 < wait <= DAY + 1e-6
        else:
            spent += rows * 0.1
        assert spent <= 5.0 + 1e-6


def test_without_bounds_nothing_waits() -> None:
    allowance = Allowance()
    assert [allowance.turn(1.0), allowance.turn(1.0), allowance.spend(10**9, 1.0)] == [0, 0, 0]
