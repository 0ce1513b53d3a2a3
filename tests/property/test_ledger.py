"""The ledger never offers a position beyond an unsettled record (D1)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamml.engine.ledger import Ledger
from streamml.errors import LedgerViolation
from tests.records import run_of


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    """Polled runs with gaps in their offsets, and groups of ordinals, each ascending, in the order in which they settle."""
    gaps = draw(st.lists(st.integers(1, 5), min_size=1, max_size=60))
    offsets = np.cumsum(gaps).tolist()
    cuts = sorted(draw(st.sets(st.integers(1, len(offsets)), max_size=6)) | {len(offsets)})
    runs = [offsets[a:b] for a, b in zip([0, *cuts], cuts, strict=False) if a < b]
    order = draw(st.permutations(range(len(offsets))))
    size = draw(st.integers(1, 10))
    return runs, [sorted(order[i : i + size]) for i in range(0, len(order), size)]


@given(schedules(), st.integers(0, 3))
def test_d1_position_is_behind_every_unsettled_record(
    schedule: tuple[list[list[int]], list[list[int]]], hidden: int
) -> None:
    """D1.1."""
    runs, groups = schedule
    offsets = [offset for run in runs for offset in run]
    ledger = Ledger(0)
    for run in runs:
        ledger.open(run_of(run))
    ledger.skip_to(offsets[-1] + 1 + hidden)
    ledger.skip_to(offsets[0])
    unsettled = set(range(len(offsets)))
    for group in groups:
        ledger.settle(np.array(group, np.int64))
        unsettled -= set(group)
        assert all(ledger.position <= offsets[ordinal] for ordinal in unsettled)
        assert ledger.unsettled == len(unsettled)
    assert ledger.position == offsets[-1] + 1 + hidden
    assert (ledger.rows, ledger.size_bytes) == (0, 0)


def test_d1_settling_twice_is_a_violation() -> None:
    """D1.7."""
    ledger = Ledger(0)
    ledger.open(run_of([0, 1]))
    ledger.settle(np.array([0, 0], np.int64))
    with pytest.raises(LedgerViolation):
        ledger.settle(np.array([1], np.int64))


def test_d1_settling_twice_is_a_violation_also_behind_records_that_are_not_settled() -> None:
    """D1.7."""
    ledger = Ledger(0)
    ledger.open(run_of([0]))
    ledger.open(run_of([1, 2]))
    ledger.settle(np.array([1, 2], np.int64))
    with pytest.raises(LedgerViolation, match="twice"):
        ledger.settle(np.array([2], np.int64))


def test_d1_what_is_shown_to_nobody_needs_no_settling() -> None:
    """D1.5."""
    ledger = Ledger(3)
    ledger.skip_to(7)
    assert ledger.position == 7
    ledger.open(run_of([9]))
    ledger.skip_to(12)
    assert ledger.position == 7
    ledger.settle(np.array([0], np.int64))
    assert ledger.position == 12
