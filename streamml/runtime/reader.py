"""Who reads the source: the worker's thread while it has nothing else to do, the source thread otherwise."""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from streamml.clock import Clock
from streamml.engine.backpressure import Budget
from streamml.engine.events import Assigned, CommitFailed, Lost, Polled, Released, Revoking
from streamml.engine.pace import Pace
from streamml.engine.retry import Backoff
from streamml.errors import FatalError, SourceUnavailable, TransientError
from streamml.ports.source import Positions, Source, TopicPartition
from streamml.runtime.inbox import Crash, Inbox, Polls
from streamml.runtime.pulse import Pulse
from streamml.runtime.untaken import Untaken

_LOG: Final = logging.getLogger("streamml.worker")
_STANDS_BACK_S: Final = 0.5
# Polls of so many records are a backlog's: it pays to read on while the worker works.
_BACKLOG_ROWS: Final = 256
_WHERE: Final = "the source"


GoOn = Callable[[], Positions | None]
"""Does the worker's next work, without a turn at the source; answers with the last positions where the worker has ended."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How a worker is driven.

    Args:
        max_poll_rows: most records taken by one poll.
        max_poll_bytes: about as many bytes are polled at once; nothing is polled while as many are not taken.
        drain_s: time that a revoke or a shutdown may take (promise D5).
        room_wait_s: time without room after which partitions are paused; pausing purges the client's prefetch.
        poll_wait_s: longest wait of one poll for records; a commit waits as long.
        stuck_after_s: how long a worker may make no progress with records at hand, or a step may take (promise L2).
        pace: how many records may be polled; ``None``: as many as there is room for.
    """

    max_poll_rows: int = 4096
    max_poll_bytes: int = 8_000_000
    drain_s: float = 5.0
    room_wait_s: float = 1.0
    poll_wait_s: float = 0.05
    stuck_after_s: float = 600.0
    pace: Pace | None = None


class Reader:
    """Turns at the source, and the listener of its rebalances.

    One turn at a time, by whoever is free for it. A worker whose stages are quick reads on its own thread: a record then waits
    for no other thread's turn at the processor and at Python's lock (docs/adr/0005). While a stage works elsewhere, while there
    is a backlog or no room, and when the worker's thread has not come back for half a second, the source thread reads, so that
    no poll waits for a model (promise B1).
    """

    def __init__(self, source: Source, clock: Clock, config: WorkerConfig, inbox: Inbox, pulse: Pulse) -> None:
        self._source = source
        self._clock = clock
        self._config = config
        self._inbox = inbox
        self._pulse = pulse
        self._untaken = Untaken(inbox, Budget(config.max_poll_rows, config.max_poll_bytes))
        self._waited_s = 0.0
        self._stopping = threading.Event()
        # Held for a turn at the source.
        self._turns = threading.Lock()
        self._opened = False
        # Set while the worker's thread leaves the source to its own; else it stands back while the worker's turns go on.
        self._left = threading.Event()
        self._left.set()
        self._own_turns = 0
        # Records that the latest poll brought.
        self._latest_rows = 0
        # How the worker goes on while partitions drain in a turn of its own thread.
        self._go_on: GoOn | None = None
        self._answers: queue.SimpleQueue[Released] = queue.SimpleQueue()
        self._commits: queue.SimpleQueue[Positions] = queue.SimpleQueue()
        self._last: Positions = {}
        # Of the partitions that are ours, the position that the group has: both change only in a turn, as commits go out.
        self._ours: dict[TopicPartition, int] = {}
        self._announced = self._heard = self._revokes = 0
        self._paused = False
        self._thread = threading.Thread(target=self._read, name="streamml-source", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def read(self, patience_s: float, go_on: GoOn) -> bool:
        """Take a turn, and wait so long for records. False where it is the source thread's. Called by the worker's thread."""
        if not self._opened or self._latest_rows >= _BACKLOG_ROWS:
            self.leave()
            return False
        self._left.clear()
        if not self._turns.acquire(blocking=False):
            return False
        try:
            self._own_turns += 1
            self._go_on = go_on
            with self._pulse.at(_WHERE):
                polled = not self._paused and self._turn(min(patience_s, self._config.poll_wait_s))
        except Exception as error:
            raise Crash.of(error, _WHERE).error from error
        finally:
            self._go_on = None
            self._turns.release()
        if not polled:
            self.leave()
        return polled

    def leave(self) -> None:
        """Leave the source to its thread. Called by the worker's thread."""
        if not self._left.is_set():
            self._left.set()

    def gate(self, is_open: bool) -> None:
        """Take records, or stop taking them. Called by the worker's thread."""
        self._untaken.gate(is_open)

    def offer(self, polls: Polls) -> None:
        """Records are next in the order of events. Called by the worker's thread."""
        self._untaken.offer(polls)

    def take(self) -> Polled | None:
        """What may be taken now; nothing while the gate is closed. Called by the worker's thread."""
        return self._untaken.take()

    def forget(self, partitions: Sequence[TopicPartition]) -> None:
        """Drop what is offered of these partitions: whoever gets them next reads it again. Called by the worker's thread."""
        self._heard += 1
        self._untaken.forget(partitions)

    @property
    def behind(self) -> bool:
        """Whether partitions came or went and the engine has not heard of it yet. Called by the worker's thread."""
        return self._announced != self._heard

    @property
    def untaken(self) -> int:
        """Records that were polled and are not taken. May be read by any thread."""
        return self._untaken.rows

    def joined(self) -> bool:
        """Whether this is a member of its group, see `Source.joined`. May be called by any thread."""
        return self._source.joined()

    def lag(self) -> int:
        """Records that wait in the topics, see `Source.lag`. May be called by any thread."""
        return self._source.lag()

    def trouble(self) -> str | None:
        """Why the source does not answer, see `Source.trouble`. May be called by any thread."""
        return self._source.trouble()

    def commit(self, positions: Positions) -> None:
        """Commit between two polls: the client lets one call in at a time, and a poll is nearly always inside."""
        self._commits.put(positions)

    def released(self, answer: Released) -> None:
        """The engine has let the partitions go."""
        self._answers.put(answer)

    def stop(self, positions: Positions) -> None:
        """End reading; commits ``positions`` and leaves the group."""
        self._last = positions
        self._stopping.set()
        self._left.set()
        if self._thread.ident is None:
            self._leave()
        else:
            self._thread.join(timeout=self._config.drain_s + 5.0)

    def _read(self) -> None:
        try:
            self._open()
            while not self._stopping.is_set():
                if not self._wanted():
                    continue
                with self._turns, self._pulse.at(_WHERE):
                    self._wait_for_room()
                    self._turn(self._config.poll_wait_s)
        except Exception as error:  # noqa: BLE001  a crash ends the worker with it
            self._inbox.put(Crash.of(error, _WHERE))
            self._stopping.wait()
        self._leave()

    def _open(self) -> None:
        """Join, however long the broker is away."""
        attempt = 0
        while not self._stopping.is_set():
            try:
                self._source.open(self)
                self._opened = True
                return
            except SourceUnavailable as error:
                attempt += 1
                _LOG.warning("Try %d to join: %s", attempt, error)
                self._stopping.wait(Backoff().delay(attempt, random.random()))  # noqa: S311

    def _wanted(self) -> bool:
        """Whether the source is left to its thread, or the worker's has not come back to it."""
        before = self._own_turns
        return self._left.wait(_STANDS_BACK_S) or self._own_turns == before

    def _turn(self, wait_s: float) -> bool:
        """Commit, and poll where there is room for what that brings; whether there was."""
        self._commit_asked()
        room = self._rows_free()
        if not room and not self._paused:
            return False
        try:
            runs = self._source.poll(max(room, 1), wait_s)
        except SourceUnavailable as error:
            _LOG.warning("%s", error)
            return True
        if failed := self._source.failed_commits():
            self._inbox.put(CommitFailed(tuple(failed)))
        ends = self._source.ends()
        self._latest_rows = sum(map(len, runs))
        if self._config.pace is not None:
            self._config.pace.took(self._latest_rows)
        if runs or ends:
            self._untaken.put(runs, ends)
        return True

    def _wait_for_room(self) -> None:
        """For a while. Past ``room_wait_s`` without room partitions are paused, and polls bring nothing."""
        free = self._untaken.wait_for_room(self._rows_free, 0.0 if self._paused else self._config.poll_wait_s)
        self._waited_s = 0.0 if free else self._waited_s + self._config.poll_wait_s
        if free and self._paused:
            self._source.resume()
            self._paused = False
        elif not free and not self._paused and self._waited_s >= self._config.room_wait_s:
            self._source.pause()
            self._paused = True

    def _rows_free(self) -> int:
        free = self._untaken.rows_free()
        return self._config.pace.rows(self._clock.now(), free) if free and self._config.pace is not None else free

    def _commit_asked(self) -> None:
        while not self._commits.empty():
            positions = self._ahead(self._commits.get())
            try:
                self._source.commit(positions, wait=False)
            except SourceUnavailable as error:
                _LOG.warning("Commit put off: %s", error)
                self._inbox.put(CommitFailed(tuple(positions)))

    def _ahead(self, positions: Positions) -> Positions:
        """What of a commit is still ours to say and moves nobody back (promise D6).

        A broker takes an offset from any member of the group, whosever the partition is, and positions are asked for
        on another thread: by the time they get here the partition may have gone, and its next owner have committed.
        """
        ahead = {where: to for where, to in positions.items() if where in self._ours and to >= self._ours[where]}
        self._ours.update(ahead)
        return ahead

    def _leave(self) -> None:
        try:
            self._source.close()
        except (TransientError, FatalError) as error:
            _LOG.warning("Left without a last commit, some records will be scored again: %s", error)

    # -- SourceListener, called by the source in a turn, on whose thread that is

    def assigned(self, positions: Positions) -> None:
        self._ours.update(positions)
        self._announce(Assigned(dict(positions)))

    def revoking(self, partitions: Sequence[TopicPartition]) -> Positions:
        try:
            return self._drained(tuple(partitions))
        finally:
            self._give_up(partitions)

    def _drained(self, partitions: tuple[TopicPartition, ...]) -> Positions:
        """The positions with which the engine lets partitions go; a worker that has stopped meanwhile answers nothing."""
        deadline = self._clock.now() + self._config.drain_s
        if not self._stopping.is_set():
            self._revokes += 1
            self._announce(Revoking(partitions, deadline, self._revokes))
        while not self._stopping.is_set():
            if self._go_on is not None and (last := self._go_on()) is not None:
                self._last = last
                break
            try:
                answer = self._answers.get(timeout=0.0 if self._go_on else self._config.poll_wait_s)
            except queue.Empty:
                if self._clock.now() < deadline + 1.0:
                    continue
                self._announce(Lost(partitions))
                return {}
            # Another one is the answer to an earlier revoke that came after its time.
            if answer.number == self._revokes:
                return self._ahead(answer.positions)
        return self._ahead({where: to for where, to in self._last.items() if where in partitions})

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._give_up(partitions)
        self._announce(Lost(tuple(partitions)))

    def _give_up(self, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            self._ours.pop(partition, None)

    def _announce(self, change: Assigned | Revoking | Lost) -> None:
        """What is polled from here on belongs to the time after the change, and must not be taken before it is known."""
        self._announced += 1
        self._untaken.announce(change)
