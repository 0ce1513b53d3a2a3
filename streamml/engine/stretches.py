"""Given stretches of partitions: what of the records that come is in them, and when they have ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from streamml.ports.source import Positions, RecordRun, TopicPartition

Bounds = Mapping[TopicPartition, tuple[int, int]]
"""First offset, and the one behind the last, by partition."""


class Stretches:
    """Reads stretches to their ends.

    One has ended when its last offset was delivered, when a record behind it came, or when the partition has: where compaction
    or markers of transactions have left nothing at its end, no record says so.
    """

    def __init__(self, bounds: Bounds, done: Positions) -> None:
        """
        Args:
            done: up to where each was done before; what lies outside of its stretch does not count.
        """
        self._bounds: Final = dict(bounds)
        self.starts: Final = {
            where: min(max(start, done.get(where, start)), end) for where, (start, end) in bounds.items()
        }
        """Where each goes on; at its end where nothing is left."""
        self.open: Final = {where: end for where, (_, end) in bounds.items() if self.starts[where] < end}
        """Ends of those that have not ended."""
        self._ended: list[TopicPartition] = []

    def within(self, run: RecordRun) -> RecordRun:
        """What of a run is in its stretch; maybe nothing."""
        end = self._bounds[run.partition][1]
        if run.offsets[-1] + 1 < end:
            return run
        self._end(run.partition)
        return _first(run, int(np.searchsorted(run.offsets, end)))

    def reached(self, where: TopicPartition, offset: int) -> bool:
        """The partition ends at ``offset``, and everything before it came; whether that can be."""
        end = self.open.get(where)
        if end is not None and offset >= end:
            self._end(where)
        return end is None or offset >= end

    def ended(self) -> dict[TopicPartition, int]:
        """Ends of those that have ended since the last call."""
        ended = {where: self._bounds[where][1] for where in self._ended}
        self._ended.clear()
        return ended

    def _end(self, where: TopicPartition) -> None:
        if self.open.pop(where, None) is not None:
            self._ended.append(where)


def _first(run: RecordRun, count: int) -> RecordRun:
    """The first ``count`` records."""
    if count == len(run):
        return run
    values = run.values[:count]
    keys = None if run.keys is None else run.keys[:count]
    return replace(
        run,
        offsets=run.offsets[:count],
        timestamps=run.timestamps[:count],
        values=values,
        keys=keys,
        headers=None if run.headers is None else run.headers[:count],
        size_bytes=sum(map(len, filter(None, values))) + sum(map(len, filter(None, () if keys is None else keys))),
    )
