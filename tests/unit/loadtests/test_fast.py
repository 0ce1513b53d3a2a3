"""The judge of ``make chaos``: which fast features a prediction may have used, given what its writer noted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadtests.baseline.load import ACCOUNTS
from loadtests.faults.fast import GROUPS, Use, Writes, accounts_of, values
from loadtests.faults.topology import FAST_TTL_S

S = 1_000_000
ACCOUNT = 5
TTL = FAST_TTL_S * S
FIRST, SECOND, THIRD = 100 * S, 104 * S, 108 * S


@pytest.fixture
def writes(tmp_path: Path) -> Writes:
    """Three writes of the account's group, of which the last was not acknowledged: its writer was killed."""
    notes = tmp_path / "writes"
    lines = [(FIRST, 0), (FIRST, FIRST + S), (SECOND, 0), (SECOND, SECOND + S), (THIRD, 0)]
    notes.write_bytes(b"".join(b"%d %d %d\n" % (ACCOUNT, tick, acked) for tick, acked in lines) + b"5 99")
    found = Writes(notes)
    found.catch_up()
    return found


def used(tick: int, fate: str = "", *, at: int = SECOND + 2 * S, took: int = 0, row_time: int | None = None) -> Use:
    return Use(ACCOUNT, fate, tick, at if row_time is None else row_time, at, at + took)


def test_a_value_is_that_of_its_own_account_and_moment() -> None:
    accounts, ticks = np.array([5, 5, 6]), np.array([FIRST, SECOND, FIRST])
    assert len(np.unique(values(accounts, ticks).ravel())) == 12
    assert not values(accounts, 0 * ticks).any()
    written = np.concatenate([accounts_of(group) for group in range(GROUPS)])
    assert sorted(written.tolist()) == [one for one in range(ACCOUNTS) if one % 50 != 3]


def test_what_was_acknowledged_before_the_record_is_read_or_what_came_later(writes: Writes) -> None:
    assert writes.explain(used(SECOND))
    assert not writes.explain(used(FIRST))
    assert not writes.explain(used(SECOND + 1))
    at = FIRST + 2 * S
    assert writes.explain(used(FIRST, at=at, took=10 * S))
    # It was not acknowledged, and may be there all the same; not before it began.
    late = THIRD + S
    assert writes.explain(used(SECOND, at=late))
    assert writes.explain(used(THIRD, at=late))
    assert not writes.explain(used(THIRD, at=THIRD - S, row_time=late))


def test_a_value_is_neither_from_the_rows_future_nor_too_old(writes: Writes) -> None:
    at = FIRST + 2 * S
    assert not writes.explain(used(SECOND, at=at, took=10 * S))
    assert writes.explain(used(0, "from_future", at=at, took=10 * S))
    assert not writes.explain(used(0, "from_future", at=at))
    assert writes.explain(used(SECOND, row_time=SECOND + TTL))
    assert not writes.explain(used(SECOND, row_time=SECOND + TTL + 1))
    assert writes.explain(used(0, "stale", row_time=SECOND + TTL + 1))
    assert not writes.explain(used(0, "stale", row_time=SECOND + TTL))


@pytest.mark.parametrize("fate", ["missing", "unavailable", "else"])
def test_an_account_that_is_written_has_a_value(writes: Writes, fate: str) -> None:
    assert not writes.explain(used(0, fate))


def test_one_that_is_never_written_has_none(writes: Writes) -> None:
    assert writes.explain(replace(used(0, "missing"), account=53))
    assert not writes.explain(replace(used(0, "stale"), account=53))
    assert not writes.explain(replace(used(SECOND), account=53))


def test_a_master_that_dies_may_take_what_it_has_just_acknowledged_with_it(writes: Writes) -> None:
    ours = np.arange(ACCOUNTS) == ACCOUNT
    writes.may_lose(~ours, SECOND + S)
    assert not writes.explain(used(FIRST))
    writes.may_lose(ours, SECOND + 3 * S)
    assert not writes.explain(used(FIRST))
    writes.may_lose(ours, SECOND + S)
    assert writes.explain(used(FIRST))
    assert writes.explain(used(SECOND))
    assert writes.explain(used(0, "stale", row_time=FIRST + TTL + 1))
    assert writes.fates["older"] == 1
    # A value with a flag that claims more than its age is wrong all the same.
    assert not writes.explain(used(0, "stale", row_time=FIRST + TTL))
