"""Threads that drive the engine.

Three kinds of thread, each with one job; they meet in one queue, the inbox:

- the *worker's own thread* (the caller of `Worker.run`) feeds the inbox to the engine and obeys: it alone touches the
  engine and the sink. With nothing else to do it takes a turn at the source;
- the *source thread* takes the turns that the worker's thread leaves to it, so that none waits for a model (promise B1). A
  turn polls, commits, and runs the client's rebalance callbacks; there is one at a time;
- one *lane* per stage runs the stage on one batch at a time, on a thread of its own unless its batches are quick.

The source thread waits for the worker's thread in two places, both bounded: for room, and for a revoke to drain. The
worker's thread waits for its inbox or the source, never for another's turn at it, so no cycle exists; a revoke in a turn of
its own drains by going on with everything else in the midst of that turn.
"""

from __future__ import annotations

import logging
import queue
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from streamml.clock import Clock
from streamml.engine.engine import Engine
from streamml.engine.events import (
    AbortTransaction,
    Action,
    Assigned,
    Commit,
    CommitTransaction,
    Event,
    Fail,
    Gate,
    GroupTold,
    Lost,
    Released,
    Revoking,
    RunStage,
    Send,
    Settled,
    StageDone,
    StageFailed,
    Stop,
    Stopped,
    TellGroup,
    Tick,
)
from streamml.engine.retry import Backoff
from streamml.errors import DeadLetterLimitExceeded, SinkUnavailable, SourceUnavailable, StreamMLError
from streamml.ports.control import Control, GroupState, how_paused
from streamml.ports.sink import Sink, TransactionalSink, TransactionEnded
from streamml.ports.source import Positions, Source
from streamml.runtime.health import Health, Liveness, Signs, ready
from streamml.runtime.inbox import Crash, Inbox, Message, Polls
from streamml.runtime.lane import Lane
from streamml.runtime.pulse import Pulse
from streamml.runtime.reader import Reader, WorkerConfig
from streamml.stages.stage import Stage
from streamml.telemetry.observer import Observer

_LOG: Final = logging.getLogger("streamml.worker")
_ACK_WAIT_S: Final = 0.002
_IDLE_WAIT_S: Final = 0.1
# A batch's way through quick stages costs one look at everything else, a backlog of them does not keep the worker from it.
_ANSWERS_A_STEP: Final = 8


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
        control: Control | None = None,
    ) -> None:
        """
        Args:
            control: tells of pauses; ``None``: nothing does, and a storm of dead letters ends the worker.
        """
        self._engine = engine
        self._sink = sink
        self._clock = clock
        self._config = config
        self._observer = observer or Observer()
        self._control = control
        self._inbox: Inbox = queue.SimpleQueue()
        self._pulse = Pulse()
        self._liveness = Liveness(config.stuck_after_s)
        self._lanes = [
            Lane(f"streamml-stage-{n}", stage, clock, self._inbox, self._pulse) for n, stage in enumerate(stages)
        ]
        self._reader = Reader(source, clock, config, self._inbox, self._pulse)
        # What quick stages answered. It waits for its turn: an event is heard of only when all that the one before it asked
        # for has been done.
        self._answers: deque[Event] = deque()
        self._stopped: Stopped | None = None
        # Batches with lanes that are threads.
        self._elsewhere = 0
        self._outstanding = 0
        self._draining = False
        self._failure = ""

    def request_stop(self) -> None:
        """Take no more records, finish what is on its way, leave. Safe from any thread and from signal handlers."""
        self._draining = True
        self._inbox.put(Stop(self._clock.now() + self._config.drain_s))

    def ready(self) -> Health:
        """Whether records that come now are scored. Safe from any thread."""
        return ready(self._signs())

    def live(self) -> Health:
        """Whether there is progress where there is something to do; has to be asked from time to time. Safe from any thread."""
        return self._liveness.judge(self._signs(), time.monotonic())

    def waits_for(self) -> str:
        """What does not answer, and is waited for; empty where all do. Safe from any thread."""
        if self._engine.waiting:
            return self._failure
        return self._reader.trouble() or self._sink.trouble() or ""

    def _signs(self) -> Signs:
        engine, done = self._engine, self._engine.statistics
        settled = (done.predictions, done.dead_letters, done.filtered, done.dropped_stale)
        return Signs(
            joined=self._reader.joined(),
            draining=self._draining,
            group_state=engine.group_state,
            waits_for=self.waits_for(),
            unheard=(self._control and self._control.trouble()) or "",
            at_hand=engine.gauge.rows + self._reader.untaken + self._reader.lag(),
            progress=(done.polled, sum(dict(done.flushes).values()), *settled),
            longest=self._pulse.longest(),
        )

    def run(self, *, until: Callable[[Engine], bool] = lambda engine: False) -> Stopped:
        """Work until `request_stop` or until ``until`` answers true; it is asked about ten times a second.

        Raises:
            StreamMLError: the worker had to stop; nothing unsettled was committed.
        """
        try:
            if self._opened():
                self._reader.start()
                self._loop(until)
        finally:
            self._close()
            self._observer.tally()
        return self._stopped or Stopped({}, 0)

    def _opened(self) -> bool:
        """Connect the sink and hear of the group, however long the broker is away; false where a stop was asked for meanwhile."""
        attempt = 0
        to_open = deque([self._sink.open, self._hear_of_group])
        while to_open:
            try:
                to_open[0]()
                # Once each: a producer that has joined its transactions refuses to do so again.
                to_open.popleft()
                continue
            except (SinkUnavailable, SourceUnavailable) as error:
                attempt += 1
                _LOG.warning("Try %d to connect to the broker: %s", attempt, error)
            try:
                stop = self._inbox.get(timeout=Backoff().delay(attempt, random.random()))  # noqa: S311
            except queue.Empty:
                continue  # Nobody asked for a stop.
            self._inbox.put(stop)
            return False
        return True

    def _hear_of_group(self) -> None:
        if self._control is not None:
            state = self._control.open(
                lambda state: self._inbox.put(GroupTold(state)), lambda error: self._inbox.put(Crash(error))
            )
            self._tell(GroupTold(state), self._clock.now())

    def _loop(self, until: Callable[[Engine], bool]) -> None:
        ask_at = 0.0
        while self._stopped is None:
            self._step()
            now = self._clock.now()
            if now >= ask_at:
                ask_at = now + 0.1
                self._observer.tally()
                if until(self._engine):
                    self.request_stop()

    def _step(self) -> None:
        self._heed(self._wait(self._read))

    def _drain(self) -> Positions | None:
        """A step in the midst of a turn at the source; the positions at which this was the last."""
        try:
            self._heed(self._wait(self._leave))
        except Exception as error:  # noqa: BLE001  what a client's callback raises may be lost on its way through the client
            self._inbox.put(Crash.of(error, "the worker's thread"))
            return self._engine.positions()
        return None if self._stopped is None else self._engine.positions()

    def _heed(self, events: list[Message]) -> None:
        now = self._clock.now()
        for event in events:
            if isinstance(event, Crash):
                raise event.error
            if isinstance(event, Polls):
                self._reader.offer(event)
            else:
                self._elsewhere -= isinstance(event, (StageDone, StageFailed))
                self._tell(event, now)
            self._take_polled(now)
        for _ in range(_ANSWERS_A_STEP):
            if not self._answers:
                break
            # Time has passed in the stage that answered, and deadlines are counted in it.
            now = self._clock.now()
            self._tell(self._answers.popleft(), now)
        for ended in self._sink.completions():
            # Of a transaction that was taken back, not everything is reported.
            self._outstanding = 0 if isinstance(ended, TransactionEnded) else self._outstanding - 1
            self._tell(ended, now)
        # What was acknowledged may have made room.
        self._take_polled(now)

    def _take_polled(self, now: float) -> None:
        if polled := self._reader.take():
            self._tell(polled, now)

    def _tell(self, event: Event, now: float) -> None:
        """Let the engine hear of an event, and obey."""
        match event:
            case Assigned() | Revoking() | Lost():
                self._reader.forget(event.partitions)
            case StageFailed():
                self._failure = str(event.error)
            case GroupTold():
                self._say(event.state)
        self._obey(self._engine.handle(event, now), now)
        if isinstance(event, StageDone):
            self._observer.staged(event.result)

    def _wait(self, read: Callable[[float], bool]) -> list[Message]:
        """Everything in the inbox, waited for at the source where ``read`` answers true; a tick when nothing came and one is due."""
        if (events := self._at_hand()) or self._answers:
            return events
        patience, due = self._patience()
        if not read(patience):
            with suppress(queue.Empty):  # Then nothing came.
                events = [self._inbox.get(timeout=patience)]
        return events + self._at_hand() or ([Tick()] if due else [])

    def _at_hand(self) -> list[Message]:
        events: list[Message] = []
        # Nobody else takes from it, so what it holds is there to be taken.
        while not self._inbox.empty():
            events.append(self._inbox.get_nowait())
        return events

    def _read(self, patience: float) -> bool:
        """Take a turn at the source, unless that would keep a batch waiting that is done elsewhere."""
        return self._leave(patience) if self._elsewhere else self._reader.read(patience, self._drain)

    def _leave(self, patience: float) -> bool:
        self._reader.leave()
        return False

    def _patience(self) -> tuple[float, bool]:
        """How long to wait for an event, and whether the engine is to hear of it when none comes."""
        longest = _ACK_WAIT_S if self._outstanding else _IDLE_WAIT_S
        wake_at = self._engine.wake_at()
        left = longest if wake_at is None else max(0.0, wake_at - self._clock.now())
        return min(longest, left), not self._outstanding or left < longest

    def _obey(self, actions: list[Action], now: float) -> None:
        for action in actions:
            match action:
                case RunStage():
                    self._run_stage(action)
                case Send():
                    self._outstanding += 1
                    self._sink.send(action.token, action.blocks)
                case Settled():
                    self._observer.settled(action, now)
                case CommitTransaction() | AbortTransaction():
                    self._end_transaction(action)
                case Commit():
                    self._reader.commit(action.positions)
                case Gate():
                    self._reader.gate(action.open)
                case TellGroup():
                    self._tell_group(action.state)
                case Released():
                    self._reader.released(action)
                case Stopped():
                    self._stopped = action
                case Fail():
                    raise action.error

    def _say(self, state: GroupState) -> None:
        """Log what the group is told, where it is news."""
        before = self._engine.group_state
        if state.paused and state != before:
            _LOG.warning("%s", how_paused(state))
        elif before.paused and not state.paused:
            _LOG.warning("Resumed by %s.", state.by or "somebody")

    def _tell_group(self, state: GroupState) -> None:
        if self._control is None:
            raise DeadLetterLimitExceeded(
                f"{state.reason}. See `streamml dlq list`; mend the cause, then start again: these records were not committed "
                "and will be read anew."
            )
        _LOG.warning("%s", how_paused(state))
        self._control.record(state)

    def _end_transaction(self, action: CommitTransaction | AbortTransaction) -> None:
        assert isinstance(self._sink, TransactionalSink)
        self._outstanding += 1
        # The generation that a commit names is that of the client, which may be ahead of the engine's partitions: what was lost
        # and has come back would be committed where another member has long gone on.
        if isinstance(action, CommitTransaction) and not self._reader.behind:
            self._sink.commit(action.positions)
        else:
            self._sink.abort()

    def _run_stage(self, job: RunStage) -> None:
        lane = self._lanes[job.stage]
        if not lane.quick:
            self._elsewhere += 1
            lane.submit(job)
            return
        answer = lane.answer(job)
        if isinstance(answer, Crash):
            raise answer.error
        self._answers.append(answer)

    def _close(self) -> None:
        """Leave in an order that loses nothing: reading ends, positions are committed, the rest is let go."""
        self._reader.stop(self._engine.positions())
        for lane in self._lanes:
            lane.stop()
        if self._control is not None:
            self._control.close()
        try:
            self._sink.close(self._config.drain_s if self._stopped is None else 1.0)
        except StreamMLError as error:
            _LOG.warning("While the sink was closed: %s", error)
