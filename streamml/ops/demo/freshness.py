"""How fresh the values of streaming sets were that predictions used, moment by moment, and what an outage of their writer did to that."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

FRESH: Final = "fresh"
QUIET: Final = "quiet"
"""Nothing was written about the entity for so long that no value of it can be fresh, however quick its writer is."""
_STEP_S: Final = 0.1
WINDOW_S: Final = 0.5
_LATELY_S: Final = 1.0
COURSE: Final = 40
_PHASE_S: Final = 3.0
_MANY: Final = 0.5
_SOON_S: Final = 5.0

Fates = Mapping[str, str]
Shares = dict[str, float]


@lru_cache(maxsize=4096)
def fates_of(flags: str) -> Fates:
    """What came of each feature set: empty where its values were used, else why the defaults were."""
    sets = (one.partition(":") for one in flags.split(","))
    # A set that was not to be had has no version, and what is no set has neither version nor fate.
    return {name.partition("@")[0]: fate for name, _, fate in sets if fate or "@" in name}


@dataclass(frozen=True, slots=True)
class Outage:
    """What became of one set when its writer was killed. Shares are of the predictions that could use a fresh value; ``None``: not yet.

    Args:
        fresh_before: share that did in the three seconds before.
        flagged_after_s: seconds from the kill until less than half as many did (less than a quarter of all, if that is more), over half a second; ``None`` also where values kept for longer.
        flagged: share that was flagged from then on until values were fresh again.
        fresh_again_after_s: seconds from the kill until that many did again.
        fresh_after: share that did in the three seconds from then on.
    """

    fresh_before: float | None = None
    flagged_after_s: float | None = None
    flagged: float | None = None
    fresh_again_after_s: float | None = None
    fresh_after: float | None = None

    def over(self, seconds: float) -> bool:
        """Whether values are fresh again so long after the kill, or never were anything else."""
        return self.fresh_again_after_s is not None or (self.flagged_after_s is None and seconds > _SOON_S)


class Freshness:
    """Counts what came of streaming sets in live predictions. Several threads may call."""

    def __init__(self, possible: Mapping[str, Collection[str]]) -> None:
        """
        Args:
            possible: by streaming set, the flights at whose departure a value could be fresh.
        """
        self._possible = possible
        self._counts: dict[str, dict[int, Counter[str]]] = {name: {} for name in possible}
        self._lock = threading.Lock()

    @property
    def sets(self) -> list[str]:
        """Names of the streaming sets."""
        return sorted(self._counts)

    def add(self, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Take further predictions, as the judge hands them on; a replay says nothing of now."""
        with self._lock:
            for one in predictions:
                if not one["made"].revision:
                    self._count(one["flight_id"], fates_of(one["made"].flags), int(one["came"] / _STEP_S))

    def _count(self, flight: str, fates: Fates, step: int) -> None:
        for name, counts in self._counts.items():
            fate = fates.get(name)
            if fate is not None:
                named = FRESH if not fate else fate if flight in self._possible[name] else QUIET
                counts.setdefault(step, Counter())[named] += 1

    def shares(self, since: float, until: float) -> dict[str, Shares]:
        """By set, which share of the predictions of a time (seconds since 1970) used its values (`FRESH`), or why not; most frequent first."""
        return {name: _shares(self._total(name, since, until)) for name in self.sets}

    def lately(self, now: float) -> dict[str, dict[str, Any]]:
        """By set: ``shares`` of the last second, and the ``course`` of the fresh share of those that could be, by half seconds, the latest last;
        ``None`` where nothing came."""
        # On a grid, so that what was told of a moment stays.
        begins = [now // WINDOW_S * WINDOW_S - number * WINDOW_S for number in range(COURSE, 0, -1)]
        shares = self.shares(now - _LATELY_S, now)
        return {
            name: {"shares": shares[name], "course": [self._fresh(name, at, at + WINDOW_S) for at in begins]}
            for name in self.sets
        }

    def are_fresh(self, now: float) -> bool:
        """Whether half of the predictions of the latest seconds used fresh values, of each set."""
        return all((self._fresh(name, now - _PHASE_S, now) or 0.0) >= _MANY for name in self._counts)

    def outage(self, name: str, killed_at: float, until: float) -> Outage:
        """What a kill did to a set.

        Args:
            until: when that was over at the latest: now, or the next kill.
        """
        before = self._fresh(name, killed_at - _PHASE_S, killed_at)
        enough, moments = max(before or 0.0, _MANY) / 2, _moments(killed_at, until)
        flagged_at = next((at for at in moments if self._holds(name, at) < enough), None)
        if flagged_at is None:
            return Outage(before)
        again_at = next((at for at in moments if self._holds(name, at) >= enough), None)
        fresh = self._fresh(name, flagged_at - WINDOW_S, again_at - WINDOW_S if again_at else until)
        return Outage(
            before,
            round(flagged_at - killed_at, 1),
            None if fresh is None else round(1 - fresh, 4),
            None if again_at is None else round(again_at - killed_at, 1),
            None if again_at is None else self._fresh(name, again_at, min(again_at + _PHASE_S, until)),
        )

    def _holds(self, name: str, at: float) -> float:
        """The share just before ``at``; one that says nothing either way where nothing came."""
        share = self._fresh(name, at - WINDOW_S, at)
        return math.nan if share is None else share

    def _fresh(self, name: str, since: float, until: float) -> float | None:
        found = self._total(name, since, until)
        possible = found.total() - found[QUIET]
        return round(found[FRESH] / possible, 4) if possible else None

    def _total(self, name: str, since: float, until: float) -> Counter[str]:
        total = Counter[str]()
        with self._lock:
            counts = self._counts[name]
            for step in range(round(since / _STEP_S), round(until / _STEP_S)):
                total.update(counts.get(step, ()))
        return total


def _moments(since: float, until: float) -> Iterator[float]:
    """Ends of windows behind ``since``, each asked for once."""
    return (since + number * _STEP_S for number in range(5, int((until - since) / _STEP_S) + 1))


def _shares(counts: Counter[str]) -> Shares:
    return {fate: round(count / counts.total(), 4) for fate, count in counts.most_common()}
