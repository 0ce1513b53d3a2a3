"""Breaker and retry budget under any order of calls, in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamml.engine.breaker import Breaker, BreakerPolicy, Circuit
from streamml.engine.retry import RetryBudget

POLICY = BreakerPolicy(failures=3, first_s=1.0, most_s=4.0)
TICKS = st.integers(0, 48).map(lambda sixteenths: sixteenths / 16)
STEPS = st.lists(st.tuples(TICKS, st.sampled_from(["ask", "succeed", "fail"])), max_size=60)


@given(STEPS)
def test_e1_an_open_breaker_lets_one_through_per_interval_and_closes_on_success(steps: list[tuple[float, str]]) -> None:
    """E1.5."""
    breaker, now, in_a_row = Breaker(POLICY), 0.0, 0
    shut_at = float("-inf")
    for passed, what in steps:
        now += passed
        if what == "ask":
            wait = breaker.admit(now)
            if in_a_row < POLICY.failures:
                assert wait == 0.0
            elif wait:
                assert wait <= POLICY.most_s
                assert now < shut_at + POLICY.most_s
            else:
                assert breaker.circuit is Circuit.HALF_OPEN
                assert now >= shut_at + POLICY.first_s
                shut_at = now
        elif what == "succeed":
            assert breaker.succeeded() == (in_a_row >= POLICY.failures)
            in_a_row = 0
        else:
            in_a_row += 1
            assert breaker.failed(now) == (in_a_row == POLICY.failures)
            shut_at = now
        assert (breaker.circuit is Circuit.CLOSED) == (in_a_row < POLICY.failures)


def test_e1_a_probe_that_never_comes_back_keeps_nobody_out() -> None:
    """E1.5."""
    breaker = Breaker(POLICY)
    for _ in range(3):
        breaker.failed(0.0)
    assert (breaker.admit(1.0), breaker.admit(1.5)) == (0.0, 0.5)
    assert breaker.admit(2.0) == 0.0


def test_e1_probes_come_less_often_the_longer_it_lasts_down_to_a_bound() -> None:
    """E1.5."""
    breaker, now, probes = Breaker(POLICY), 0.0, []
    for _ in range(3):
        breaker.failed(now)
    for _ in range(4):
        now += breaker.admit(now)
        assert breaker.admit(now) == 0.0
        probes.append(now)
        breaker.failed(now)
    assert probes == [1.0, 3.0, 7.0, 11.0]


@given(st.lists(st.tuples(TICKS, st.booleans()), max_size=200), st.floats(0.01, 1.0), st.floats(0.1, 5.0))
def test_e1_retries_are_a_share_of_first_tries_and_a_few_more_by_the_second(
    steps: list[tuple[float, bool]], share: float, free_per_s: float
) -> None:
    """E1.6."""
    budget, now, first, retries = RetryBudget(share=share, free_per_s=free_per_s, most=10.0), 0.0, 0, 0
    for passed, is_first in steps:
        now += passed
        if is_first:
            budget.earn()
            first += 1
        else:
            at = now + budget.spend(now)
            retries += 1
            assert retries <= 10.0 + share * first + free_per_s * at + 1e-6


def test_e1_a_retry_is_put_off_and_never_given_up() -> None:
    """E1.6."""
    budget = RetryBudget(share=0.5, free_per_s=1.0, most=2.0)
    assert [budget.spend(0.0) for _ in range(4)] == [0.0, 0.0, 1.0, 2.0]
    assert budget.spend(10.0) == pytest.approx(0.0)
