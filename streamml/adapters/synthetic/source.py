"""A source that hands over records which it has already."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence

from streamml.ports.source import Positions, RecordRun, SourceListener, TopicPartition


class PreparedSource:
    """Gives each run out once, whole; see `streamml.ports.source.Source` for the contract. It is alone in its group."""

    def __init__(self, runs: Iterable[RecordRun]) -> None:
        """
        Args:
            runs: ascending in each partition.
        """
        self._waiting = deque(runs)
        self._listener: SourceListener | None = None
        self._committed: dict[TopicPartition, int] = {}
        self._starts: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        for run in self._waiting:
            self._starts.setdefault(run.partition, int(run.offsets[0]))
            self._ends[run.partition] = int(run.offsets[-1]) + 1
        self._told = False

    def open(self, listener: SourceListener) -> None:
        """See `Source.open`."""
        self._listener = listener

    def poll(self, max_rows: int, timeout_s: float) -> list[RecordRun]:
        """See `Source.poll`. A run that is larger than ``max_rows`` comes alone."""
        if not self._told and self._listener is not None:
            self._told = True
            self._listener.assigned(dict(self._starts))
        runs: list[RecordRun] = []
        rows = 0
        while self._waiting and (not runs or rows + len(self._waiting[0]) <= max_rows):
            runs.append(self._waiting.popleft())
            rows += len(runs[-1])
        if not runs:
            time.sleep(timeout_s)
        return runs

    def commit(self, positions: Positions, *, wait: bool) -> None:
        """See `Source.commit`."""
        self._committed.update(positions)

    def ends(self) -> Positions:
        """See `Source.ends`."""
        return {}

    def failed_commits(self) -> Sequence[TopicPartition]:
        """See `Source.failed_commits`."""
        return ()

    def pause(self) -> None:
        """See `Source.pause`."""

    def resume(self) -> None:
        """See `Source.resume`."""

    def committed(self) -> Positions:
        """See `Source.committed`."""
        return dict(self._committed)

    def watermarks(self) -> dict[TopicPartition, tuple[int, int]]:
        """See `Source.watermarks`."""
        return {where: (start, self._ends[where]) for where, start in self._starts.items()}

    def trouble(self) -> str | None:
        """See `Source.trouble`."""
        return None

    def joined(self) -> bool:
        """See `Source.joined`."""
        return self._told

    def lag(self) -> int:
        """See `Source.lag`."""
        return sum(map(len, self._waiting))

    def close(self) -> None:
        """See `Source.close`."""
