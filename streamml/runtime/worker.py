"""Threads that drive the engine.

Three kinds of thread, each with one job; they meet in one queue, the inbox:

- the *source thread* polls, commits, and runs the client's rebalance callbacks; it alone touches the source, and never
  waits for a model (promise B1);
- one *lane* per stage runs the stage on one batch at a time, on a thread of its own unless its batches are quick;
- the *worker's own thread* (the caller of `Worker.run`) feeds the inbox to the engine and obeys: it alone touches the
  engine and the sink.

The source thread waits for the worker's thread in two places, both bounded: for room, and for a revoke to drain. The
worker's thread waits for nobody but its inbox, so no cycle exists.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from streamml.clock import Clock
from streamml.engine.engine import Engine
from streamml.engine.events import (
    Action,
    Assigned,
    Commit,
    CommitFailed,
    Event,
    Fail,
    Gate,
    Lost,
    Polled,
    Released,
    Revoking,
    RunStage,
    Send,
    Settled,
    StageDone,
    StageFailed,
    StepTiming,
    Stop,
    Stopped,
    Tick,
)
from streamml.engine.retry import Backoff
from streamml.errors import FatalError, SourceUnavailable, StreamMLError, TransientError
from streamml.ports.sink import Sink
from streamml.ports.source import Positions, RecordRun, Source, TopicPartition
from streamml.stages.stage import Stage
from streamml.telemetry.observer import Observer

_LOG: Final = logging.getLogger("streamml.worker")
_ACK_WAIT_S: Final = 0.002
_IDLE_WAIT_S: Final = 0.1
_QUICK_OUTSIDE_S: Final = 0.005
_QUICK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How a worker is driven.

    Args:
        max_poll_rows: most records taken by one poll.
        drain_s: time that a revoke or a shutdown may take (promise D5).
        room_wait_s: time without room after which partitions are paused; pausing purges the client's prefetch.
        poll_wait_s: longest wait of one poll for records; a commit waits as long.
    """

    max_poll_rows: int = 4096
    drain_s: float = 5.0
    room_wait_s: float = 1.0
    poll_wait_s: float = 0.05


class Worker:
    """One member of the group, from joining to leaving."""

    def __init__(
        self,
        engine: Engine,
        source: Source,
        stages: Sequence[Stage],
        sink: Sink,
        clock: Clock,
        config: WorkerConfig,
        observer: Observer | None = None,
    ) -> None:
        self._engine = engine
        self._sink = sink
        self._clock = clock
        self._config = config
        self._observer = observer or Observer()
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._lanes = [_Lane(f"streamml-stage-{n}", stage, clock, self._inbox) for n, stage in enumerate(stages)]
        self._reader = _Reader(source, clock, config, self._inbox)
        self._stopped: Stopped | None = None
        self._outstanding = 0

    def request_stop(self) -> None:
        """Take no more records, finish what is on its way, leave. Safe from any thread and from signal handlers."""
        self._inbox.put(Stop(self._clock.now() + self._config.drain_s))

    def run(self, *, until: Callable[[Engine], bool] = lambda engine: False) -> Stopped:
        """Work until `request_stop` or until ``until`` answers true; it is asked about ten times a second.

        Raises:
            StreamMLError: the worker had to stop; nothing unsettled was committed.
        """
        self._sink.open()
        self._reader.start()
        try:
            self._loop(until)
        finally:
            self._close()
        assert self._stopped is not None
        return self._stopped

    def _loop(self, until: Callable[[Engine], bool]) -> None:
        ask_at = 0.0
        while self._stopped is None:
            self._step()
            now = self._clock.now()
            if now >= ask_at:
                ask_at = now + 0.1
                if until(self._engine):
                    self.request_stop()

    def _step(self) -> None:
        events = self._wait()
        now = self._clock.now()
        for event in events:
            if isinstance(event, _Crash):
                raise event.error
            if isinstance(event, _Polls):
                self._reader.offer(event)
            else:
                self._tell(event, now)
            self._take_polled(now)
        for delivered in self._sink.completions():
            self._outstanding -= 1
            self._tell(delivered, now)

    def _take_polled(self, now: float) -> None:
        if runs := self._reader.take():
            self._tell(Polled(runs), now)

    def _tell(self, event: Event, now: float) -> None:
        """Let the engine hear of an event, and obey."""
        if isinstance(event, (Revoking, Lost)):
            self._reader.forget(event.partitions)
        self._obey(self._engine.handle(event, now), now)
        if isinstance(event, StageDone):
            self._observer.staged(event.result)

    def _wait(self) -> list[Message]:
        """Everything in the inbox; a tick when nothing came in time."""
        try:
            events = [self._inbox.get(timeout=self._patience())]
        except queue.Empty:
            return [Tick()]
        while True:
            try:
                events.append(self._inbox.get_nowait())
            except queue.Empty:
                return events

    def _patience(self) -> float:
        longest = _ACK_WAIT_S if self._outstanding else _IDLE_WAIT_S
        wake_at = self._engine.wake_at()
        return longest if wake_at is None else min(longest, max(0.0, wake_at - self._clock.now()))

    def _obey(self, actions: list[Action], now: float) -> None:
        for action in actions:
            match action:
                case RunStage():
                    self._run_stage(action, now)
                case Send():
                    self._outstanding += 1
                    self._sink.send(action.token, action.blocks)
                case Settled():
                    self._observer.settled(action, now)
                case Commit():
                    self._reader.commit(action.positions)
                case Gate():
                    self._reader.gate(action.open)
                case Released():
                    self._reader.released(action)
                case Stopped():
                    self._stopped = action
                case Fail():
                    raise action.error

    def _run_stage(self, job: RunStage, now: float) -> None:
        lane = self._lanes[job.stage]
        if not lane.quick:
            lane.submit(job)
            return
        answer = lane.answer(job)
        if isinstance(answer, _Crash):
            raise answer.error
        self._tell(answer, now)

    def _close(self) -> None:
        """Leave in an order that loses nothing: reading ends, positions are committed, the rest is let go."""
        self._reader.stop(self._engine.positions())
        for lane in self._lanes:
            lane.stop()
        self._sink.close(self._config.drain_s if self._stopped is None else 1.0)


@dataclass(frozen=True, slots=True)
class _Crash:
    """A thread ended with an error that it could not answer itself."""

    error: BaseException


class _Lane:
    """Runs one stage: on a thread of its own, or, while its batches are quick, right where it is asked to.

    Python runs one thread at a time. Threads pay where a step waits or computes outside of Python's lock for longer than
    it takes to hand over; for quick steps they only take the lock from each other (measured on two cores: 65,000 events/s
    with two lanes on threads, 109,000 without).
    """

    def __init__(self, name: str, stage: Stage, clock: Clock, inbox: queue.SimpleQueue[Message]) -> None:
        self._stage = stage
        self._clock = clock
        self._inbox = inbox
        self.quick = False
        self._jobs: queue.SimpleQueue[RunStage | None] = queue.SimpleQueue()
        # A daemon, as a model that hangs must not keep the process alive past its shutdown budget.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: RunStage) -> None:
        """Run a job on the lane's thread; the answer comes into the inbox."""
        self._jobs.put(job)

    def stop(self) -> None:
        self._jobs.put(None)
        self._thread.join(timeout=1.0)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._inbox.put(self.answer(job))

    def answer(self, job: RunStage) -> StageDone | StageFailed | _Crash:
        """Run a job here and now."""
        self.quick = False
        try:
            result = self._stage.run(job.batch, self._clock.now())
        except StreamMLError as error:
            if isinstance(error, TransientError):
                _LOG.warning("Try %d of stage %d: %s", job.attempt, job.stage, error)
            return StageFailed(job.job, error, random.random())  # noqa: S311  jitter needs no secrecy
        except Exception as error:
            return _Crash(error)
        self.quick = _is_quick(result.timings)
        return StageDone(job.job, result)


def _is_quick(timings: Sequence[StepTiming]) -> bool:
    outside = sum(timing.seconds for timing in timings if timing.outside)
    return outside < _QUICK_OUTSIDE_S and sum(timing.seconds for timing in timings) < _QUICK_S


class _Polls:
    """Records that were polled and not taken yet. More may be added until the engine takes them, or until the assignment
    changes: what is polled after that comes behind the change."""

    def __init__(self) -> None:
        self.runs: list[RecordRun] = []

    def rows(self) -> int:
        return sum(map(len, self.runs))


class _Reader:
    """The source thread, and the listener of its rebalances."""

    def __init__(self, source: Source, clock: Clock, config: WorkerConfig, inbox: queue.SimpleQueue[Message]) -> None:
        self._source = source
        self._clock = clock
        self._config = config
        self._inbox = inbox
        # Guards `_filling` and `_untaken`. What is polled and not taken is at most one poll, so that it stays bounded (B2);
        # the worker's thread takes all that has come when it is free for it, so that nothing waits for a turn in between.
        self._room = threading.Condition()
        self._filling: _Polls | None = None
        self._untaken = 0
        self._offered: list[_Polls] = []
        self._gate_open = True
        self._waited_s = 0.0
        self._stopping = threading.Event()
        self._answers: queue.SimpleQueue[Released] = queue.SimpleQueue()
        self._commits: queue.SimpleQueue[Positions] = queue.SimpleQueue()
        self._last: Positions | None = None
        self._paused = False
        self._thread = threading.Thread(target=self._read, name="streamml-source", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def gate(self, is_open: bool) -> None:
        """Take records, or stop taking them. Called by the worker's thread."""
        with self._room:
            self._gate_open = is_open
            self._room.notify()

    def offer(self, polls: _Polls) -> None:
        """Records are next in the order of events. Called by the worker's thread."""
        self._offered.append(polls)

    def take(self) -> list[RecordRun]:
        """What may be taken now; nothing while the gate is closed. Called by the worker's thread."""
        if not self._offered or not self._gate_open:
            return []
        with self._room:
            runs = [run for polls in self._offered for run in polls.runs]
            if self._filling in self._offered:
                self._filling = None
            self._offered.clear()
            self._untaken -= sum(map(len, runs))
            self._room.notify()
        return runs

    def forget(self, partitions: Sequence[TopicPartition]) -> None:
        """Drop what is offered of these partitions: whoever gets them next reads it again. Called by the worker's thread."""
        with self._room:
            for polls in self._offered:
                before = polls.rows()
                polls.runs = [run for run in polls.runs if run.partition not in partitions]
                self._untaken -= before - polls.rows()

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
        self._thread.join(timeout=self._config.drain_s + 5.0)

    def _read(self) -> None:
        try:
            self._open()
            while not self._stopping.is_set():
                self._turn()
        except Exception as error:
            self._inbox.put(_Crash(error))
            self._stopping.wait()
        self._leave()

    def _open(self) -> None:
        """Join, however long the broker is away."""
        attempt = 0
        while not self._stopping.is_set():
            try:
                self._source.open(self)
                return
            except SourceUnavailable as error:
                attempt += 1
                _LOG.warning("Try %d to join: %s", attempt, error)
                self._stopping.wait(Backoff().delay(attempt, random.random()))  # noqa: S311

    def _turn(self) -> None:
        self._commit_asked()
        room = self._wait_for_room()
        if not room and not self._paused:
            return
        try:
            runs = self._source.poll(max(room, 1), self._config.poll_wait_s)
        except SourceUnavailable as error:
            _LOG.warning("%s", error)
            return
        if runs:
            self._hand_over(runs)

    def _hand_over(self, runs: list[RecordRun]) -> None:
        with self._room:
            polls = self._filling
            if polls is None:
                polls = self._filling = _Polls()
                self._inbox.put(polls)
            polls.runs += runs
            self._untaken += sum(map(len, runs))

    def _wait_for_room(self) -> int:
        """Rows that may be polled now. Past ``room_wait_s`` without room partitions are paused, and polls bring nothing."""
        with self._room:
            if not self._rows_free():
                self._room.wait(0.0 if self._paused else self._config.poll_wait_s)
            free = self._rows_free()
        self._waited_s = 0.0 if free else self._waited_s + self._config.poll_wait_s
        if free and self._paused:
            self._source.resume()
            self._paused = False
        elif not free and not self._paused and self._waited_s >= self._config.room_wait_s:
            self._source.pause()
            self._paused = True
        return free

    def _rows_free(self) -> int:
        return max(0, self._config.max_poll_rows - self._untaken) if self._gate_open else 0

    def _commit_asked(self) -> None:
        while not self._commits.empty():
            positions = self._commits.get()
            try:
                self._source.commit(positions, wait=False)
            except SourceUnavailable as error:
                _LOG.warning("Commit put off: %s", error)
                self._inbox.put(CommitFailed(tuple(positions)))

    def _leave(self) -> None:
        try:
            if self._last:
                self._source.commit(self._last, wait=True)
            self._source.close()
        except (TransientError, FatalError) as error:
            _LOG.warning("Left without a last commit, some records will be scored again: %s", error)

    # -- SourceListener, called by the source on this thread

    def assigned(self, positions: Positions) -> None:
        self._announce(Assigned(dict(positions)))

    def revoking(self, partitions: Sequence[TopicPartition]) -> Positions:
        if self._stopping.is_set():
            return {}
        deadline = self._clock.now() + self._config.drain_s
        self._announce(Revoking(tuple(partitions), deadline))
        try:
            while (answer := self._answers.get(timeout=self._config.drain_s + 1.0)).partitions != tuple(partitions):
                pass  # The answer to an earlier revoke that came after its time.
            return answer.positions
        except queue.Empty:
            self.lost(partitions)
            return {}

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._announce(Lost(tuple(partitions)))

    def _announce(self, change: Assigned | Revoking | Lost) -> None:
        """What is polled from here on belongs to the time after the change, and must not be taken before it is known."""
        with self._room:
            self._filling = None
            self._inbox.put(change)


Message = Event | _Polls | _Crash
"""What meets in the inbox."""
