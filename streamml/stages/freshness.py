"""What a stored value is worth to a row: there, missing, too old, or from the row's future (promise F2)."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from streamml.batch.frozen import frozen
from streamml.batch.microbatch import Int, Mask

_ONCE_IN_A_MILLION: Final = math.log(1e6)


class State(enum.IntEnum):
    """How a set answered for one row; the number is its code in an array."""

    FRESH = 0
    MISSING = 1
    STALE = 2
    FROM_FUTURE = 3
    UNAVAILABLE = 4

    @property
    def flag(self) -> str:
        """What is written behind ``set@version`` in the prediction's flags."""
        return "" if self is State.FRESH else f":{self.name.lower()}"


def states(present: Mask, row_time: Int, event_time: Int, ttl_us: int | None) -> npt.NDArray[np.int8] | None:
    """The state of each row, int8 ``[n]``; ``None`` where all are fresh.

    Age = row time − time that the value describes, both int64 ``[n]``, µs. Older than ``ttl_us`` is stale; younger than
    nothing is from the future: the value knows what the row could not.
    """
    # Without a sign it is right however far apart the two are, where it is not from the future.
    age = (row_time - event_time).view(np.uint64)
    known = present & (event_time <= row_time)
    fresh = known if ttl_us is None else known & (age <= ttl_us)
    if np.count_nonzero(fresh) == len(fresh):
        return None
    found = np.where(present, State.FROM_FUTURE, State.MISSING).astype(np.int8)
    found[known] = State.STALE
    found[fresh] = State.FRESH
    return found


@frozen
class Defaults:
    """How many rows of a batch get defaults for want of a value.

    Args:
        version: of the feature set.
        rows: of the batch.
        defaulted: of these, those that get defaults.
        entities: whether each has no usable value; of a version that is young (`DefaultsMeter.young`).
    """

    version: str
    rows: int
    defaulted: int
    entities: Mapping[tuple[bytes, ...], bool]


@dataclass(slots=True)
class DefaultsMeter:
    """Share of rows that get defaults for want of a value, among the latest ones of a version (promise F3).

    Two rules. Over a whole window the share of rows counts. Before that, with a new version or in a worker that has just
    started, the share of *distinct entities* does, as soon as chance would show so many without a value once in a million
    loads at most that are within the limit. So neither each bad load nor each restart with one gets a window of rows through;
    and many rows of one new entity are not taken for a bad load.

    Only what passed is remembered, so that one good batch after a mended load opens the way again, and a batch that is tried
    again counts once.

    Args:
        max_ratio: share above which rows do not pass.
        window: rows that the share is taken over.
    """

    max_ratio: float
    window: int = 1000
    _version: str | None = None
    _rows: int = 0
    _defaulted: int = 0
    _entities: dict[tuple[bytes, ...], bool] = field(default_factory=dict)

    def young(self, version: str) -> bool:
        """Whether a window of rows of this version is still to pass; then `share` wants to know the entities."""
        return version != self._version or self._rows < self.window

    def share(self, batch: Defaults) -> float | None:
        """The share with this batch if it is over the limit; ``None``: it passes, and may be remembered."""
        seen, without, known = self._with(batch)
        if seen >= self.window and without > self.max_ratio * seen:
            return without / seen
        lacking = sum(known.values())
        return lacking / len(known) if _surely_over(lacking, len(known), self.max_ratio) else None

    def remember(self, batch: Defaults) -> None:
        """This batch has passed."""
        seen, without, known = self._with(batch)
        self._version = batch.version
        self._rows, self._defaulted = min(seen, self.window), int(without * min(1.0, self.window / seen))
        self._entities = known if self._rows < self.window else {}

    def _with(self, batch: Defaults) -> tuple[int, int, dict[tuple[bytes, ...], bool]]:
        if batch.version != self._version:
            return batch.rows, batch.defaulted, dict(batch.entities)
        return self._rows + batch.rows, self._defaulted + batch.defaulted, {**self._entities, **batch.entities}


def _surely_over(count: int, total: int, limit: float) -> bool:
    """Whether so many of ``total`` would come about by chance at most once in a million times if ``limit`` of all were such.

    The bound of Chernoff for a binomial tail: exp(-total * KL(share, limit)); see Mitzenmacher and Upfal, "Probability and
    Computing", chapter 4.
    """
    if not total or count <= limit * total:
        return False
    if limit == 0.0:
        return True
    share = count / total
    distance = share * math.log(share / limit)
    distance += (1.0 - share) * math.log((1.0 - share) / (1.0 - limit)) if share < 1.0 else 0.0
    return total * distance > _ONCE_IN_A_MILLION
