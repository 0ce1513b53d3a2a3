"""What a batch costs, learned from batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamml.engine.cost import CostModel, ladder


def linear(rows: int) -> float:
    return 0.002 + 0.00005 * rows


def swept(most: int = 4096) -> CostModel:
    return CostModel(most, {rows: linear(rows) for rows in ladder(most)})


def test_the_ladder_ends_at_the_largest_batch() -> None:
    assert ladder(1) == [1]
    assert ladder(8) == [1, 2, 4, 8]
    assert ladder(100) == [1, 2, 4, 8, 16, 32, 64, 100]


def test_a_sweep_gives_the_sizes_that_fit_a_time() -> None:
    cost = swept()
    assert cost.most_within(np.array([0.002, linear(1), linear(160), linear(161) - 1e-6, 9.0])).tolist() == [
        *(0, 1),
        *(160, 160),
        4096,
    ]


def test_m3_the_knee_is_the_smallest_size_that_is_nearly_as_quick_per_row_as_any() -> None:
    """M3.1: 2048 rows are 98 % as quick as 4096 or more, 1024 are not."""
    assert swept().knee == 2048


def test_the_smallest_size_that_keeps_up() -> None:
    cost = swept()
    assert [cost.keeps_up(rate) for rate in (0, 400, 14_000, 1e9)] == [1, 1, 128, cost.knee]


def test_padding_makes_steps_and_no_line_is_drawn_through_them() -> None:
    """One batch takes 1 ms up to 64 rows and 10 ms from 65 on."""
    cost = CostModel(128)
    for _ in range(200):
        for rows in (1, 16, 32, 64, 128):
            cost.learn(rows, 0.001 if rows <= 64 else 0.010)
    assert cost.most_within(0.0011) == pytest.approx(64, abs=2)
    assert cost.seconds(128) == pytest.approx(0.010, rel=0.1)


def test_a_slower_model_is_noticed_within_a_hundred_batches_and_one_hiccup_is_forgotten() -> None:
    cost = swept()
    for _ in range(100):
        cost.learn(64, linear(64))
    cost.learn(64, 10.0)
    assert cost.seconds(64) == pytest.approx(linear(64), rel=0.05)
    for _ in range(100):
        cost.learn(64, 3 * linear(64))
    assert cost.seconds(64) == pytest.approx(3 * linear(64), rel=0.1)


def test_what_a_stage_takes_besides_its_model_is_learned_for_sizes_that_never_ran() -> None:
    cost = swept()
    cost.learn(64, 2 * linear(64))
    assert cost.seconds(4096) == pytest.approx(2 * linear(4096), rel=0.01)


def test_it_is_the_time_that_nine_batches_of_ten_keep_to() -> None:
    random, cost = np.random.default_rng(0), CostModel(64)
    for took in random.uniform(0.010, 0.020, 5_000).tolist():
        cost.learn(64, took)
    assert 0.018 <= cost.seconds(64) <= 0.020


def test_without_a_measurement_nothing_is_held_back_but_what_is_late_already() -> None:
    cost = CostModel(100)
    assert cost.most_within(np.array([-1.0, 0.001])).tolist() == [0, 100]
    assert (cost.keeps_up(1e6), cost.knee) == (1, 100)


@given(
    most=st.integers(1, 5_000),
    runs=st.lists(st.tuples(st.integers(1, 5_000), st.floats(0.0, 100.0)), min_size=1, max_size=60),
)
def test_more_rows_never_cost_less_and_what_fits_does(most: int, runs: list[tuple[int, float]]) -> None:
    cost = CostModel(most)
    for rows, seconds in runs:
        cost.learn(min(rows, most), seconds)
    curve = [cost.seconds(rows) for rows in range(1, most + 1, max(1, most // 50))]
    assert all(np.diff(curve) >= -1e-12)
    assert all(np.isfinite(curve))
    assert 1 <= cost.knee <= most
    for seconds in (curve[0], curve[-1], 1.0):
        fits = int(cost.most_within(seconds))
        assert 0 <= fits <= most
        assert not fits or cost.seconds(fits) <= seconds * (1 + 1e-6) + 1e-9


RUNGS = (1, 8, 64, 256)


def test_m6_a_batch_costs_what_the_next_rung_does() -> None:
    """M6.1."""
    cost = CostModel(256, {1: 0.001, 8: 0.002, 64: 0.004, 256: 0.010}, RUNGS)
    assert [cost.seconds(rows) for rows in (1, 2, 8, 9, 65, 256)] == pytest.approx(
        [0.001, 0.002, 0.002, 0.004, 0.01, 0.01]
    )
    assert cost.most_within(np.array([0.0009, 0.001, 0.0035, 0.0099, 1.0, np.inf])).tolist() == [0, 1, 8, 64, 256, 256]


def test_m6_what_a_padded_batch_takes_is_learned_for_its_rung() -> None:
    """M6.1."""
    cost = CostModel(256, None, RUNGS)
    for _ in range(30):
        for rows, seconds in ((3, 0.001), (50, 0.002), (70, 0.010)):
            cost.learn(rows, seconds)
    assert [cost.seconds(rows) for rows in (8, 64, 256)] == pytest.approx([0.001, 0.002, 0.010], rel=0.05)


@pytest.mark.parametrize(("rows", "taken"), [(1, 1), (8, 8), (9, 8), (64, 64), (65, 64), (200, 200), (300, 300)])
def test_m6_a_batch_just_above_a_rung_is_cut_to_it(rows: int, taken: int) -> None:
    """M6.4: 64 rows and then 136, run as 256, take longer than 256 at once."""
    cost = CostModel(256, {1: 0.001, 8: 0.002, 64: 0.004, 256: 0.010}, RUNGS)
    assert cost.least_padding(rows) == taken
