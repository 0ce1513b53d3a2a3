"""Drives the engine without threads, in time that moves only when told to."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

from streamml.clock import ManualClock
from streamml.engine.engine import Engine
from streamml.engine.events import (
    AbortTransaction,
    Assigned,
    Commit,
    CommitTransaction,
    Event,
    Fail,
    Gate,
    GroupTold,
    Lost,
    Polled,
    Released,
    Revoking,
    RunStage,
    Send,
    StageDone,
    StageFailed,
    Stop,
    Stopped,
    TellGroup,
    Tick,
)
from streamml.errors import FatalError, SourceUnavailable, StreamMLError, TransientError
from streamml.ports.control import Control, GroupState
from streamml.ports.sink import Sink, TransactionalSink
from streamml.ports.source import Positions, Source, TopicPartition
from streamml.stages.stage import Stage

ServiceTime = Mapping[str, Callable[[int], float]]
"""Seconds that a step takes for a number of rows, by name of the step; steps that are not named take none."""


class VirtualWorker:
    """What `streamml.runtime.worker.Worker` does with threads, one thing after the other.

    Everything that can happen at an instant happens, then the clock goes to the next instant at which anything is due.
    A stage runs when it is asked to; its answer comes when its service time is over.
    """

    def __init__(
        self,
        engine: Engine,
        source: Source,
        stages: Sequence[Stage],
        sink: Sink,
        control: Control,
        clock: ManualClock,
        *,
        max_poll_rows: int,
        drain_s: float,
        service_time: ServiceTime,
    ) -> None:
        self._engine = engine
        self._source = source
        self._stages = stages
        self._sink = sink
        self._control = control
        self._clock = clock
        self._max_poll_rows = max_poll_rows
        self._drain_s = drain_s
        self._service_time = service_time
        self._answers: list[tuple[float, int, Event]] = []
        self._joined = False
        self._releases: list[Released] = []
        self._stopped: Stopped | None = None
        self._told: deque[GroupState] = deque()
        self.batch_rows: dict[str, list[int]] = defaultdict(list)
        self.last_failure: TransientError | None = None
        self._tell(GroupTold(control.open(self._told.append, _raise)))

    def run(self, until: float, *, polling: bool = True, done: Callable[[], bool] = lambda: False) -> None:
        """Work until nothing is due before ``until``, or ``done`` answers true between two things that happen.

        Raises:
            StreamMLError: a worker would have stopped with this error.
        """
        while not done():
            if self._turn(polling):
                continue
            due = self.due_at()
            if due > until:
                return
            self._clock.advance(due - self._clock.now())

    def join(self) -> bool:
        """Join the group, which fixes where it begins; whether the broker answered."""
        try:
            if not self._joined:
                self._source.open(self)
                self._joined = True
        except SourceUnavailable:
            return False
        return True

    def due_at(self) -> float:
        """When something happens next if nothing comes from outside; infinite where nothing does."""
        wake_at = self._engine.wake_at()
        answer_at = self._answers[0][0] if self._answers else math.inf
        return answer_at if wake_at is None else min(wake_at, answer_at)

    def stop(self) -> Stopped:
        """Take no more records, finish what fits, commit, leave."""
        deadline = self._clock.now() + self._drain_s
        self._tell(Stop(deadline))
        self.run(deadline, polling=False, done=lambda: self._stopped is not None)
        assert self._stopped is not None
        self._source.commit(self._stopped.positions, wait=True)
        self._source.close()
        self._sink.close(0.0)
        self._control.close()
        return self._stopped

    def crash(self) -> None:
        """End at once; nothing is finished, committed or said."""
        self._control.close()

    # -- one thing at a time

    def _turn(self, polling: bool) -> bool:
        """Do what is due at this instant; whether there was anything."""
        if self._told:
            self._tell(GroupTold(self._told.popleft()))
            return True
        if polling and self._poll():
            return True
        now = self._clock.now()
        if self._answers and self._answers[0][0] <= now:
            self._tell(heapq.heappop(self._answers)[2])
            return True
        delivered = self._sink.completions()
        for one in delivered:
            self._tell(one)
        if delivered:
            return True
        if self.due_at() <= now:
            self._tell(Tick())
            return True
        return False

    def _poll(self) -> bool:
        if not self.join():
            return False
        try:
            runs = self._source.poll(self._max_poll_rows, 0.0)
        except SourceUnavailable:
            return False
        if runs:
            self._tell(Polled(runs))
        return bool(runs)

    def _tell(self, event: Event) -> None:
        for action in self._engine.handle(event, self._clock.now()):
            match action:
                case RunStage():
                    self._run_stage(action)
                case Send():
                    self._sink.send(action.token, action.blocks)
                case CommitTransaction() | AbortTransaction():
                    self._end_transaction(action)
                case Commit():
                    self._source.commit(action.positions, wait=False)
                case Gate():
                    (self._source.resume if action.open else self._source.pause)()
                case TellGroup():
                    self._control.record(action.state)
                case Released():
                    self._releases.append(action)
                case Stopped():
                    self._stopped = action
                case Fail():
                    raise action.error

    def _end_transaction(self, action: CommitTransaction | AbortTransaction) -> None:
        assert isinstance(self._sink, TransactionalSink)
        if isinstance(action, CommitTransaction):
            self._sink.commit(action.positions)
        else:
            self._sink.abort()

    def _run_stage(self, job: RunStage) -> None:
        now = self._clock.now()
        answer: Event
        try:
            result = self._stages[job.stage].run(job.batch, now, job.attempt, self._seconds)
        except StreamMLError as error:
            if isinstance(error, TransientError):
                self.last_failure = error
            answer, took = StageFailed(job.job, error), 0.0
        else:
            for timing in result.timings:
                self.batch_rows[timing.step].append(timing.rows)
            answer = StageDone(job.job, result)
            took = sum(timing.seconds for timing in result.timings)
        heapq.heappush(self._answers, (now + took, job.job, answer))

    def _seconds(self, step: str, rows: int) -> float:
        takes = self._service_time.get(step)
        return 0.0 if takes is None else takes(rows)

    # -- SourceListener, called inside of poll and close

    def assigned(self, positions: Positions) -> None:
        self._tell(Assigned(dict(positions)))

    def revoking(self, partitions: Sequence[TopicPartition]) -> Positions:
        if self._stopped is not None:
            return {}
        self._releases.clear()
        deadline = self._clock.now() + self._drain_s
        self._tell(Revoking(tuple(partitions), deadline, number=0))
        self.run(deadline, polling=False, done=lambda: bool(self._releases))
        return self._releases[0].positions

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._tell(Lost(tuple(partitions)))


def _raise(error: FatalError) -> None:
    raise error
