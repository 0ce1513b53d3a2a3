"""Which rows a free stage gets, and when, by deadlines and by what batches cost. The model takes 2 ms and 0.05 ms per row."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamml.batch.microbatch import MicroBatch, Origin
from streamml.engine.batcher import Batcher, BatchPolicy, Flush
from streamml.engine.cost import CostModel, ladder
from streamml.engine.deadline import LatencyBudget, hopeless

NOW = 1_700_000_000.0
MOST = 4096
MEASURED = {rows: 0.002 + 0.00005 * rows for rows in ladder(MOST)}

OnLate = Literal["score", "last", "dead_letter"]


def batcher(on_late: OnLate = "score", budget_s: float = 0.020, **more: Any) -> Batcher:
    return Batcher(BatchPolicy(MOST, budget=LatencyBudget(budget_s, on_late=on_late, measured=MEASURED, **more)))


def rows(ages_ms: list[int], slot: int = 0, first: int = 0) -> MicroBatch:
    number = np.arange(first, first + len(ages_ms))
    born = np.array([int(NOW * 1000) - age for age in ages_ms], np.int64)
    zeros = np.zeros(len(ages_ms), np.int64)
    return MicroBatch(Origin(zeros + slot, number, number, born, zeros), {})


def numbers(batch: MicroBatch | None) -> list[int]:
    return [] if batch is None else batch.origin.ordinal.tolist()


def test_m1_a_free_stage_gets_what_can_be_done_before_the_earliest_deadline() -> None:
    """M1.3, M4.1: 20 ms are left for 400 rows that would take 22."""
    waiting = batcher()
    waiting.put(rows([0] * 400))
    taken = waiting.take(NOW)
    assert taken is not None
    assert (len(taken[0]), taken[1]) == (360, Flush.BUDGET)
    assert waiting.rows == 40


def test_m1_the_earliest_deadline_counts_wherever_its_row_is() -> None:
    """M1.3: a row of 10 ms in the last part leaves 10 ms, which is 160 rows."""
    waiting = batcher()
    waiting.put(rows([0] * 300))
    waiting.put(rows([10], slot=1, first=300))
    taken = waiting.take(NOW)
    assert taken is not None
    assert (len(taken[0]), taken[1]) == (160, Flush.BUDGET)


@pytest.mark.parametrize(("age_ms", "size"), [(19, 2048), (30, 2048), (60_000, 2048)])
def test_m3_where_the_oldest_row_cannot_make_it_the_batch_is_one_of_best_throughput(age_ms: int, size: int) -> None:
    """M3.1, M4.1."""
    waiting = batcher()
    waiting.put(rows([age_ms] + [0] * 2_999))
    taken = waiting.take(NOW)
    assert taken is not None
    assert (len(taken[0]), taken[1]) == (size, Flush.CATCH_UP)


def test_m3_a_batch_that_meets_the_deadline_and_does_not_keep_up_is_not_taken() -> None:
    """M3.1: 60 rows would still make it, but rows come faster than 60 in 5 ms."""
    waiting, now = batcher(), NOW - 0.1
    while now < NOW - 0.005:
        waiting.put(rows([15] * 15))
        waiting.take(now)
        now += 0.001
    while waiting.rows:
        waiting.take(now)
    waiting.put(rows([15] * 300))
    taken = waiting.take(NOW)
    assert taken is not None
    assert (len(taken[0]), taken[1]) == (300, Flush.CATCH_UP)


def test_without_a_budget_nothing_changes_with_age_and_cost() -> None:
    waiting = Batcher(BatchPolicy(256))
    waiting.learn(256, 100.0)
    waiting.put(rows([60_000] * 300))
    first, second = waiting.take(NOW), waiting.take(NOW)
    assert first is not None
    assert second is not None
    assert [(len(first[0]), first[1]), (len(second[0]), second[1])] == [(256, Flush.FULL), (44, Flush.FREE)]
    assert waiting.take(NOW) is None
    assert waiting.expired(NOW) is None


def test_m2_rows_that_cannot_make_it_are_given_up_and_the_others_are_in_time() -> None:
    """M2.4."""
    waiting = batcher("dead_letter")
    waiting.put(rows([30, 21, 5, 0]))
    assert numbers(waiting.expired(NOW)) == [0, 1]
    taken = waiting.take(NOW)
    assert taken is not None
    assert (numbers(taken[0]), taken[1]) == ([2, 3], Flush.FREE)


def test_m2_rows_set_aside_are_scored_when_there_is_room_and_fresh_ones_before_them() -> None:
    """M2.5."""
    waiting = batcher("last")
    waiting.put(rows([30] * 500))
    waiting.put(rows([0] * 100, first=500))
    taken = waiting.take(NOW)
    assert taken is not None
    # 160 rows take 10 ms, which leaves as long for what comes meanwhile.
    assert (numbers(taken[0]), taken[1]) == ([*range(500, 600), *range(60)], Flush.ASIDE)
    assert waiting.rows == 440


def test_m3_rows_set_aside_catch_up_at_best_throughput_while_nothing_comes_in_time() -> None:
    """M3.1."""
    waiting = batcher("last")
    waiting.put(rows([60_000] * 5_000))
    taken = waiting.take(NOW)
    assert taken is not None
    assert (numbers(taken[0]), taken[1]) == (list(range(2048)), Flush.ASIDE)


def test_a_model_too_slow_for_its_budget_is_still_given_rows_so_that_it_may_get_quicker() -> None:
    waiting = batcher("dead_letter", budget_s=0.001)
    waiting.put(rows([0] * 10))
    assert waiting.expired(NOW) is None
    taken = waiting.take(NOW)
    assert taken is not None
    assert len(taken[0]) == 10


def test_the_event_time_counts_where_the_stage_has_it() -> None:
    waiting = batcher("dead_letter", born="at")
    late = np.array([int(NOW * 1e6) - 30_000, int(NOW * 1e6)], "M8[us]")
    waiting.put(rows([0, 30]).with_columns({"at": late}))
    assert numbers(waiting.expired(NOW)) == [0]


def test_closed_slots_leave_every_queue() -> None:
    waiting = batcher("last")
    waiting.put(rows([30] * 400, slot=1), size_bytes=4_000)
    waiting.put(rows([30] * 400, slot=2, first=400), size_bytes=4_000)
    waiting.take(NOW)
    waiting.put(rows([0] * 10, slot=1, first=400))
    waiting.drop({1})
    left = waiting.rows
    assert waiting.size_bytes == pytest.approx(8_000 * left / 810, rel=0.5)
    waiting.drop({2})
    assert (waiting.rows, waiting.size_bytes) == (0, 0.0)


@given(left_ms=st.lists(st.integers(-30, 30), min_size=1, max_size=500), rate=st.sampled_from([0.0, 8e3, 14e3, 1e6]))
def test_whoever_is_left_out_is_older_and_the_oldest_that_stays_makes_it(left_ms: list[int], rate: float) -> None:
    cost, left = CostModel(MOST, MEASURED), np.array(left_ms) / 1000.0
    out = hopeless(left, cost, rate)
    stay = np.delete(left, out)
    if len(out) and len(stay):
        assert left[out].max() <= stay.min()
    if len(stay) and cost.most_within(left.max()):
        batch = min(len(stay), int(cost.most_within(stay.min())))
        assert batch >= min(len(stay), cost.keeps_up(rate))


@given(
    steps=st.lists(
        st.tuples(st.lists(st.integers(-5, 60), max_size=80), st.integers(0, 40), st.booleans()), max_size=25
    ),
    on_late=st.sampled_from(["score", "last", "dead_letter"]),
)
def test_every_row_leaves_once_in_whatever_order(steps: list[tuple[list[int], int, bool]], on_late: OnLate) -> None:
    waiting, now, count, seen = batcher(on_late), NOW, 0, []
    for ages, passed_ms, take in steps:
        waiting.put(rows(ages, first=count))
        count += len(ages)
        now += passed_ms / 1000
        seen += numbers(waiting.expired(now))
        if take and (taken := waiting.take(now)):
            assert 1 <= len(taken[0]) <= MOST
            waiting.learn(len(taken[0]), 0.003)
            seen += numbers(taken[0])
    for _ in range(count):
        seen += numbers(waiting.expired(now))
        if taken := waiting.take(now):
            seen += numbers(taken[0])
        assert taken or not waiting.rows
    assert sorted(seen) == list(range(count))
    assert waiting.take(now) is None
    if on_late == "score":
        assert seen == list(range(count))


def stepped(on_late: OnLate | None) -> Batcher:
    measured = {1: 0.001, 8: 0.002, 64: 0.004, 256: 0.010}
    budget = None if on_late is None else LatencyBudget(0.020, on_late=on_late, measured=measured)
    return Batcher(BatchPolicy(256, budget=budget, rungs=tuple(measured)))


def test_m6_a_batch_is_cut_where_two_with_little_padding_are_sooner() -> None:
    """M4.1, M6.4."""
    waiting = stepped("score")
    waiting.put(rows([0] * 65))
    first, second = waiting.take(NOW), waiting.take(NOW)
    assert first is not None
    assert second is not None
    assert [(len(first[0]), first[1]), (len(second[0]), second[1])] == [(64, Flush.RUNG), (1, Flush.FREE)]


def test_m6_a_ladder_without_a_budget_learns_from_batches_where_to_cut() -> None:
    """M6.4."""
    waiting = stepped(None)
    for size, seconds in ((1, 0.001), (8, 0.002), (64, 0.004), (256, 0.010)) * 30:
        waiting.learn(size, seconds)
    waiting.put(rows([60_000] * 65))
    taken = waiting.take(NOW)
    assert taken is not None
    assert (len(taken[0]), taken[1]) == (64, Flush.RUNG)


def test_m6_a_batch_that_meets_a_deadline_is_a_whole_rung() -> None:
    """M1.3, M6.1: 9 ms are left, in which 64 rows can be done and 65 cannot."""
    waiting = stepped("score")
    waiting.put(rows([11] * 200))
    taken = waiting.take(NOW)
    assert taken is not None
    assert (len(taken[0]), taken[1]) == (64, Flush.BUDGET)


@given(counts=st.lists(st.integers(0, 400), max_size=20), on_late=st.sampled_from([None, "score"]))
def test_m6_every_row_leaves_once_and_in_order_with_a_ladder(counts: list[int], on_late: OnLate | None) -> None:
    """M6.2."""
    waiting, seen, count = stepped(on_late), [], 0
    for more in counts:
        waiting.put(rows([0] * more, first=count))
        count += more
        if taken := waiting.take(NOW):
            waiting.learn(len(taken[0]), 0.001 * len(taken[0]))
            seen += numbers(taken[0])
    while taken := waiting.take(NOW):
        seen += numbers(taken[0])
    assert seen == list(range(count))
