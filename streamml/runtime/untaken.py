"""Records that were polled and that the engine has not taken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from streamml.engine.backpressure import Budget, Gauge
from streamml.engine.events import Assigned, Lost, Polled, Revoking
from streamml.ports.source import Positions, RecordRun, TopicPartition
from streamml.runtime.inbox import Inbox, Polls

_FIRST_ROWS: Final = 64


class Untaken:
    """At most about one poll of records, so that what is polled stays bounded (promise B2).

    A turn at the source puts records in; the worker's thread takes all that have come when it is free for them, so that nothing
    waits for a turn in between. Both see them in the order of the inbox: those that were polled after a change of the
    assignment come behind it.
    """

    def __init__(self, inbox: Inbox, budget: Budget) -> None:
        """
        Args:
            budget: most records of a poll, and about as many bytes; nothing is polled while as many are here.
        """
        self._inbox = inbox
        self._budget = budget
        # Guards `_filling` and `_gauge`.
        self._room = threading.Condition()
        self._gauge = Gauge(budget)
        self._filling: Polls | None = None
        self._offered: list[Polls] = []
        self._gate_open = True
        # Bytes of a record, as the latest poll had them: a poll is counted in records. The first one is small.
        self._record_bytes = budget.size_bytes / _FIRST_ROWS

    @property
    def rows(self) -> int:
        """Records that are here. May be read by any thread."""
        return self._gauge.rows

    # -- in a turn at the source

    def rows_free(self) -> int:
        """Records that may be polled now."""
        if not (self._gate_open and self._gauge.room):
            return 0
        fitting = (self._budget.size_bytes - self._gauge.size_bytes) / self._record_bytes
        return max(1, min(self._budget.rows - self._gauge.rows, int(fitting)))

    def wait_for_room(self, rows_free: Callable[[], int], wait_s: float) -> int:
        """What ``rows_free`` answers, waited for while that is none."""
        with self._room:
            return self._room.wait_for(rows_free, wait_s)

    def put(self, runs: Sequence[RecordRun], ends: Positions) -> None:
        """Records of one poll, and the ends of partitions behind them."""
        rows, size = sum(map(len, runs)), _bytes(runs)
        if rows:
            self._record_bytes = max(1.0, size / rows)
        with self._room:
            if self._filling is None:
                self._filling = Polls()
                self._inbox.put(self._filling)
            self._filling.runs += runs
            self._filling.ends.update(ends)
            self._gauge.add(rows, size)

    def announce(self, change: Assigned | Revoking | Lost) -> None:
        """What is put from here on belongs to the time after the change, and is not taken before that is known."""
        with self._room:
            self._filling = None
            self._inbox.put(change)

    # -- on the worker's thread

    def gate(self, is_open: bool) -> None:
        """Let records be taken, or not."""
        with self._room:
            self._gate_open = is_open
            self._room.notify()

    def offer(self, polls: Polls) -> None:
        """Records are next in the order of the inbox."""
        self._offered.append(polls)

    def take(self) -> Polled | None:
        """What may be taken now; nothing while the gate is closed."""
        if not self._offered or not self._gate_open:
            return None
        with self._room:
            runs = [run for polls in self._offered for run in polls.runs]
            ends = {where: end for polls in self._offered for where, end in polls.ends.items()}
            if self._filling in self._offered:
                self._filling = None
            self._offered.clear()
            self._gauge.add(-sum(map(len, runs)), -_bytes(runs))
            self._room.notify()
        return Polled(runs, ends)

    def forget(self, partitions: Sequence[TopicPartition]) -> None:
        """Drop what is offered of these partitions: whoever gets them next reads it again."""
        with self._room:
            for polls in self._offered:
                gone = [run for run in polls.runs if run.partition in partitions]
                polls.runs = [run for run in polls.runs if run.partition not in partitions]
                polls.ends = {where: end for where, end in polls.ends.items() if where not in partitions}
                self._gauge.add(-sum(map(len, gone)), -_bytes(gone))


def _bytes(runs: Sequence[RecordRun]) -> int:
    return sum(run.size_bytes for run in runs)
