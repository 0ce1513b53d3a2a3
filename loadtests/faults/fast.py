"""The fast features of a run: what their writer writes, and which of it a prediction may have used.

A value is a function of its account and its event time, so that a torn one, another account's, and one that was never written are seen from
outside. The writer notes what it begins and what was acknowledged in a file that outlives it.
"""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from loadtests.baseline.load import ACCOUNTS
from loadtests.baseline.topology import RECENT
from loadtests.faults.topology import FAST_TTL_S

GROUPS: Final = 16
"""Accounts are written a group at a time, in turn."""
COPIED_WITHIN_US: Final = 1_000_000
"""What a master acknowledged earlier than this before its death, its replica has. Redis promises no bound."""
_TTL_US: Final = FAST_TTL_S * 1_000_000
_EVERY: Final = 50
_UNWRITTEN: Final = 3
_FACTORS: Final = np.array([2_654_435_761, 2_246_822_519, 3_266_489_917, 668_265_263], np.uint64)
_NEVER: Final = 1 << 62
Int = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def accounts_of(group: int) -> Int:
    """The accounts that the writer writes together; some, popular ones among them, it never writes."""
    return np.array([account for account in range(group, ACCOUNTS, GROUPS) if account % _EVERY != _UNWRITTEN])


def values(accounts: Int, ticks: Int) -> npt.NDArray[np.float32]:
    """Features ``[n, 4]``, -128 to 128, of these accounts at these event times (µs); 0, the defaults, where the time is 0."""
    seeds = accounts.astype(np.uint64)[:, None] * _FACTORS + ticks.astype(np.uint64)[:, None] * _FACTORS[::-1]
    found = ((seeds >> np.uint64(16)) & np.uint64(0xFFFF)).astype(np.float32) / np.float32(256) - np.float32(128)
    return np.where(ticks[:, None] != 0, found, np.float32(0))


def rows(accounts: Int, tick: int) -> dict[str, Any]:
    """One write, as `FeatureWriter.write` takes it."""
    ticks = np.full(len(accounts), tick)
    columns = dict(zip(RECENT, values(accounts, ticks).T, strict=True))
    return {"account": accounts, "event_time": ticks.astype("M8[us]"), "tick": ticks, **columns}


@dataclass(frozen=True, slots=True)
class Use:
    """What a prediction says of its fast features, and when it can have read them; times in µs.

    Args:
        fate: its flag; empty where the value was used.
        tick: event time of that value, 0 with the defaults.
        row_time: what the value's age is counted from. A producer with a wrong clock makes it wrong.
        sent: before the record was in the topic.
        arrived: after the prediction was.
    """

    account: int
    fate: str
    tick: int
    row_time: int
    sent: int
    arrived: int


@dataclass(frozen=True, slots=True)
class _Loss:
    """Writes that a fail-over may take back: those of these accounts that were acknowledged in this time."""

    since: int
    until: int
    accounts: Mask


class Writes:
    """What the writer has written so far, and what that explains.

    Attributes:
        fates: of how many uses the value was fresh, or why not; ``older``: an acknowledged write was lost in a fail-over, and
            the value before it was used.
    """

    def __init__(self, notes: Path) -> None:
        """
        Args:
            notes: the writer's file.
        """
        self.fates: Counter[str] = Counter()
        self._notes = notes
        self._read = 0
        self._ticks: list[list[int]] = [[] for _ in range(GROUPS)]
        self._acked: list[list[int]] = [[] for _ in range(GROUPS)]
        self._losses: list[_Loss] = []

    @property
    def complete(self) -> bool:
        """Whether every account that is written at all has a value."""
        self.catch_up()
        return all(acked and min(acked) < _NEVER for acked in self._acked)

    def catch_up(self) -> None:
        """Read what the writer noted meanwhile."""
        if not self._notes.exists():
            return
        with self._notes.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._read += len(text)
        for line in text.splitlines():
            self.note(*map(int, line.split()))

    def note(self, group: int, tick: int, acked: int) -> None:
        """A write begins (``acked`` is 0), or the one that began last is acknowledged."""
        if acked:
            self._acked[group][-1] = acked
        else:
            self._ticks[group].append(tick)
            self._acked[group].append(_NEVER)

    def may_lose(self, accounts: Mask, now: int) -> None:
        """The master that has these accounts dies now."""
        self._losses.append(_Loss(now - COPIED_WITHIN_US, now + COPIED_WITHIN_US, accounts))

    def explain(self, use: Use) -> bool:
        """Whether a prediction may have used this."""
        self.fates[use.fate or "fresh"] += 1
        if use.account % _EVERY == _UNWRITTEN:
            return (use.fate, use.tick) == ("missing", 0)
        there = self._possible(use)
        if not use.fate:
            return use.tick in there and 0 <= use.row_time - use.tick <= _TTL_US
        ages = [use.row_time - tick for tick in there]
        too_old, too_new = any(age > _TTL_US for age in ages), any(age < 0 for age in ages)
        return use.tick == 0 and {"stale": too_old, "from_future": too_new}.get(use.fate, False)

    def _possible(self, use: Use) -> list[int]:
        """Event times of the values that Redis may have had between the record and its prediction."""
        group = use.account % GROUPS
        ticks, acked = self._ticks[group], self._acked[group]
        end = bisect.bisect_right(ticks, use.arrived)
        settled = (place for place in reversed(range(end)) if acked[place] < use.sent)
        newest = next(settled, 0)
        oldest = newest
        while oldest and self._may_be_lost(use.account, acked[oldest]):
            oldest = next(settled, 0)
        self.fates["older"] += ticks[oldest] <= use.tick < ticks[newest]
        return ticks[oldest:end]

    def _may_be_lost(self, account: int, acked: int) -> bool:
        return any(one.since <= acked <= one.until and one.accounts[account] for one in self._losses)
