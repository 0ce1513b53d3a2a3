"""The pure core: takes what happened and the time, says what to do. No I/O, no thread, no clock.

One record's way through it::

    Polled ──▶ ledger.open ──▶ batcher of stage 0 ──▶ RunStage ─▶ StageDone ──▶ batcher of stage 1 … last stage
                                                                      │ outcomes
                                                                      ▼
    Commit ◀── ledger.settle ◀── Delivered ◀── Send ◀── sequencer (order per source partition)

Every row carries the number of its slot. A slot is closed when its partition goes; whatever arrives for it later is
dropped here and nowhere else (promise D6).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

import numpy as np

from streamml.batch.microbatch import Int, MicroBatch
from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.assignment import Assignment, Slot, SlotNames
from streamml.engine.backpressure import Budget, Gauge
from streamml.engine.batcher import Batcher, BatchPolicy, Flush
from streamml.engine.brake import Brake
from streamml.engine.dead_letters import DeadLetterLimit
from streamml.engine.events import (
    Action,
    Assigned,
    Commit,
    CommitFailed,
    Event,
    Fail,
    Gate,
    GroupTold,
    Lost,
    Polled,
    Released,
    Revoking,
    RunStage,
    Settled,
    StageDone,
    StageFailed,
    Stop,
    Stopped,
    TellGroup,
)
from streamml.engine.feature_log import LogConfig
from streamml.engine.outbound import Letters, prediction_records, without_parents_of
from streamml.engine.outbox import AtLeastOnce, ExactlyOnce, Outbox, Rows
from streamml.engine.retry import Backoff, RetryBudget
from streamml.engine.rows import check_conservation, rows_of, split_by_slot, stretches
from streamml.engine.sequencer import Sequencer
from streamml.errors import FatalError, LedgerViolation, TransientError
from streamml.ports.control import GroupState
from streamml.ports.sink import Delivered, OutboundRecords, TransactionEnded
from streamml.ports.source import RecordRun, TopicPartition

_FIRST_ROWS: Final = 64
_by_partition: Final = attrgetter("partition")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the engine decides by.

    Args:
        stages: batch policy of each stage, in the order that rows pass them.
        prediction_topic, dead_letter_topic: where outcomes go.
        dead_letter_limit: when to pause the group because too much fails.
        budget: bound on what is polled and unsettled.
        exactly_once: send and commit in transactions (promise D2), which needs ``ordered``.
        ordered: keep the order of each source partition.
        commit_interval_s: how often positions are committed; at a crash, as much may be scored twice.
        max_outbound_rows, max_outbound_bytes: bound on what is handed to the sink and not acknowledged.
        backoff: pause between tries of a stage whose dependency is down.
        worker: this worker's name, for dead letters.
        feature_log: where the features of predictions are written; ``None``: nowhere.
    """

    stages: tuple[BatchPolicy, ...]
    prediction_topic: str
    dead_letter_topic: str
    dead_letter_limit: DeadLetterLimit
    budget: Budget
    exactly_once: bool = False
    ordered: bool = True
    commit_interval_s: float = 0.2
    max_outbound_rows: int = 100_000
    max_outbound_bytes: int = 64_000_000
    backoff: Backoff = field(default_factory=Backoff)
    worker: str = ""
    feature_log: LogConfig | None = None


@dataclass(slots=True)
class _Job:
    stage: int
    batch: MicroBatch
    closes: int
    attempt: int = 1
    retry_at: float | None = None


@dataclass(slots=True)
class _Stage:
    batcher: Batcher
    max_rows: int
    growth: float
    busy: bool = False


@dataclass(frozen=True, slots=True)
class _Drain:
    slots: tuple[int, ...]
    revoke: Revoking


@dataclass(slots=True)
class EngineStatistics:
    """What the engine holds now, and what it did since the start."""

    polled: int = 0
    predictions: int = 0
    dead_letters: int = 0
    filtered: int = 0
    retries: int = 0
    dropped_stale: int = 0
    flushes: dict[tuple[int, Flush], int] = field(default_factory=dict)


class Engine:
    """Decides what a worker does next; see the module's docstring. Calls come from one thread."""

    def __init__(self, config: EngineConfig, names: SlotNames) -> None:
        self._config = config
        self._names = names
        self._assignment = Assignment(names, ordered=config.ordered)
        self._stages = [
            _Stage(
                Batcher(policy), policy.max_rows, max(1.0, policy.max_rows / _FIRST_ROWS) if policy.explodes else 1.0
            )
            for policy in config.stages
        ]
        self._budgeted = [
            (index, policy.budget) for index, policy in enumerate(config.stages) if policy.budget is not None
        ]
        self._jobs: dict[int, _Job] = {}
        self._numbers = 0
        self._closes = 0
        outbound = Budget(config.max_outbound_rows, config.max_outbound_bytes)
        self._outbox: Outbox = (
            ExactlyOnce(self._records, outbound, config.commit_interval_s, config.backoff)
            if config.exactly_once
            else AtLeastOnce(self._records, outbound)
        )
        self._gauge = Gauge(config.budget)
        self._brake = Brake(config.dead_letter_limit, config.worker)
        self._gate_open = True
        self._commit_at = 0.0
        self._retries = RetryBudget()
        self._drains: list[_Drain] = []
        self._stop: Stop | None = None
        self.statistics = EngineStatistics()

    def handle(self, event: Event, now: float) -> list[Action]:
        """Everything to do because of ``event``, in order. ``now`` is in seconds since 1970 and never goes back."""
        actions: list[Action] = []
        try:
            match event:
                case StageDone():
                    self._stage_done(event, now, actions)
                case Delivered():
                    self._delivered(event, actions)
                case Polled():
                    self._polled(event)
                case StageFailed():
                    self._stage_failed(event, now, actions)
                case Assigned():
                    self._assigned(event)
                case Revoking():
                    self._drains.append(self._drain(event))
                case Lost():
                    self._close(event.partitions)
                case TransactionEnded():
                    self._transaction_ended(event, now, actions)
                case CommitFailed():
                    self._uncommit(event)
                case GroupTold():
                    self._brake.change(event.state)
                case Stop():
                    self._stop = self._stop or event
            self._go_on(now, actions)
        except FatalError as error:
            actions.append(Fail(error))
        return actions

    def wake_at(self) -> float | None:
        """When a `Tick` is due even if nothing else happens."""
        times = [job.retry_at for job in self._jobs.values() if job.retry_at is not None]
        times += [drain.revoke.deadline for drain in self._drains]
        send_at = None if self._brake.withholds else self._outbox.wake_at(self._assignment.slots())
        if send_at is not None:
            times.append(send_at)
        if self._stop is not None:
            times.append(self._stop.deadline)
        if not self._config.exactly_once and any(map(self._to_commit, self._assignment.slots())):
            times.append(self._commit_at)
        return min(times, default=None)

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._gauge.rows

    @property
    def group_state(self) -> GroupState:
        """Whether the group is paused, as far as this worker knows. May be read by any thread."""
        return self._brake.state

    @property
    def waiting(self) -> bool:
        """Whether a stage waits for something that did not answer, until it does. May be read by any thread."""
        return any(job.retry_at is not None or job.attempt > 1 for job in list(self._jobs.values()))

    @property
    def gauge(self) -> Gauge:
        """What is on its way, and the most that ever was."""
        return self._gauge

    @property
    def outbound(self) -> Gauge:
        """What the sink has and the broker has not acknowledged, and the most that ever was."""
        return self._outbox.gauge

    def positions(self) -> dict[TopicPartition, int]:
        """Next offset to commit for each partition that is ours; transactions have committed theirs."""
        return self._positions(self._assignment.slots())

    def _positions(self, slots: Iterable[Slot]) -> dict[TopicPartition, int]:
        if self._config.exactly_once:
            return {}
        return {slot.partition: self._position(slot) for slot in slots}

    @property
    def _urgent(self) -> bool:
        """Whether somebody waits for rows to settle."""
        return bool(self._drains) or self._stop is not None

    def _position(self, slot: Slot) -> int:
        """How far a slot may be committed; not at all further while what looks like a storm of dead letters is weighed."""
        return slot.committed if self._weighed else slot.ledger.position

    def _to_commit(self, slot: Slot) -> bool:
        return slot.unsure or self._position(slot) != slot.committed

    @property
    def _weighed(self) -> bool:
        return self._brake.keeps_from_commit(idle=self.idle)

    def queued_rows(self) -> list[int]:
        """Rows that wait, per stage."""
        return [stage.batcher.rows for stage in self._stages]

    # -- what happened -----------------------------------------------------------------------------------------------

    def _assigned(self, event: Assigned) -> None:
        self._close(event.positions)
        for partition, position in event.positions.items():
            self._assignment.open(partition, position)

    def _polled(self, event: Polled) -> None:
        ours: list[tuple[RecordRun, Slot]] = []
        # By partition, so that the rows of a slot lie together all the way.
        for run in sorted(event.runs, key=_by_partition):
            slot, rows = self._assignment.of(run.partition), len(run)
            if slot is None:
                self.statistics.dropped_stale += rows
                continue
            ours.append((run, slot))
            self._gauge.add(rows, run.size_bytes)
            self.statistics.polled += rows
        if ours:
            self._stages[0].batcher.put(rows_of(ours))
        for partition, position in event.ends.items():
            slot = self._assignment.of(partition)
            if slot is not None:
                slot.ledger.skip_to(position)

    def _stage_done(self, event: StageDone, now: float, actions: list[Action]) -> None:
        job, result = self._jobs.pop(event.job), event.result
        stage, size, rows = self._stages[job.stage], result.size_bytes, len(job.batch)
        stage.busy = False
        made = len(result.batch) + sum(map(len, result.outcomes))
        # What a batch makes is bounded in rows by the largest batch, and in bytes by the budget.
        heavy = size / self._config.budget.size_bytes * stage.max_rows
        stage.growth = max(1.0, made / rows, heavy / rows)
        stage.batcher.learn(rows, sum(timing.seconds for timing in result.timings))
        check_conservation(job.batch, result.batch, result.outcomes)
        if len(result.batch):
            if job.stage + 1 == len(self._stages):
                raise LedgerViolation(f"{len(result.batch)} rows left the last stage without an end.")
            self._stages[job.stage + 1].batcher.put(self._still_ours(result.batch, job.closes), size)
        self._end(result.outcomes, now, actions)

    def _stage_failed(self, event: StageFailed, now: float, actions: list[Action]) -> None:
        job = self._jobs[event.job]
        if not isinstance(event.error, TransientError):
            actions.append(Fail(event.error))
            return
        if event.error.retry_in_s is not None:
            # Turned away by a breaker: nobody was asked, so it was no try. Services that are asked may say "at once", again and again.
            pause = max(self._config.backoff.delay(1, event.random), event.error.retry_in_s)
            job.retry_at, job.attempt = now + pause, job.attempt - 1
            return
        pause = max(self._config.backoff.delay(job.attempt, event.random), self._retries.spend(now))
        job.retry_at = now + pause
        self.statistics.retries += 1

    def _delivered(self, event: Delivered, actions: list[Action]) -> None:
        if self._config.exactly_once:
            self._brake.weigh_refused(len(event.refusals))
        ended, letters = self._outbox.delivered(event)
        mine = tuple(one for one in letters if self._assignment.by_number(int(one.origin.slot[0])) is not None)
        if mine:
            self._send(mine, actions)
        if ended:
            self._settle(ended, actions, besides=letters)

    def _transaction_ended(self, event: TransactionEnded, now: float, actions: list[Action]) -> None:
        self.statistics.retries += not event.committed
        settled = self._outbox.ended(event, self._assignment.slots(), now)
        if settled:
            self._settle(settled, actions)

    def _uncommit(self, event: CommitFailed) -> None:
        for partition in event.partitions:
            slot = self._assignment.of(partition)
            if slot is not None:
                slot.unsure = True

    # -- rows that ended ---------------------------------------------------------------------------------------------

    def _end(self, outcomes: Iterable[Outcomes], now: float, actions: list[Action]) -> None:
        """Put outcomes in order and send what may go."""
        released: list[Outcomes] = []
        by_slot: dict[int, list[Outcomes]] = {}
        for piece in filter(len, outcomes):
            if self._passes(piece):
                released.append(piece)
                continue
            for number, rows in split_by_slot(piece):
                by_slot.setdefault(number, []).append(rows)
        for number, pieces in by_slot.items():
            slot = self._assignment.by_number(number)
            if slot is None:
                self.statistics.dropped_stale += sum(len(piece) for piece in pieces)
            else:
                released.extend(slot.sequencer.offer(pieces))
        if released:
            self._send(tuple(released), actions)

    def _passes(self, piece: Outcomes) -> bool:
        """Whether all of ``piece`` may go out as it is, because in each of its slots these are the next records."""
        if piece.origin.child is not None:
            return False
        following: list[tuple[Sequencer, int]] = []
        for number, start, end in stretches(piece.origin):
            slot = self._assignment.by_number(number)
            if slot is None or not slot.sequencer.follows(piece.origin.ordinal[start:end]):
                return False
            following.append((slot.sequencer, end - start))
        for sequencer, records in following:
            sequencer.passed(records)
        return True

    def _send(self, outcomes: tuple[Outcomes, ...], actions: list[Action]) -> None:
        if self._config.exactly_once:
            # Before they are in a transaction: what is weighed later is committed by then.
            self._brake.weigh(outcomes)
        settled = self._outbox.put(outcomes)
        if settled:
            self._settle(settled, actions)

    def _records(self, rows: Rows, now: float) -> tuple[OutboundRecords, ...]:
        records = tuple(self._block_records(block, now) for block in rows)
        if self._config.feature_log is None:
            return records
        logged = self._config.feature_log.records(rows, self._names.prefixes, now)
        return records if logged is None else (*records, logged)

    def _block_records(self, block: Outcomes, now: float) -> OutboundRecords:
        if block.kind is Kind.PREDICTION:
            return prediction_records(block, self._config.prediction_topic)
        if block.kind is Kind.FILTERED:
            return OutboundRecords(self._config.prediction_topic, [], [], [], [])
        letters = Letters(self._assignment, self._names, self._config.dead_letter_topic, self._config.worker)
        return letters.records(block, now)

    def _settle(
        self, outcomes: tuple[Outcomes, ...], actions: list[Action], *, besides: tuple[Outcomes, ...] = ()
    ) -> None:
        """Rows ended; records that have rows ``besides`` are not settled yet."""
        ordinals: dict[int, list[Int]] = {}
        for block in without_parents_of(besides, outcomes):
            for number, start, end in stretches(block.origin):
                ordinals.setdefault(number, []).append(block.origin.ordinal[start:end])
        exploded = any(block.origin.child is not None for block in outcomes)
        for number, parts in ordinals.items():
            slot = self._assignment.by_number(number)
            if slot is not None:
                left = slot.ledger.settle(_ascending(parts, once=exploded))
                self._gauge.add(-left[0], -left[1])
        for block in outcomes:
            self._count(block)
        actions.append(Settled(outcomes))
        if not self._config.exactly_once:
            self._brake.weigh(outcomes)

    def _count(self, block: Outcomes) -> None:
        match block.kind:
            case Kind.PREDICTION:
                self.statistics.predictions += len(block)
            case Kind.DEAD_LETTER:
                self.statistics.dead_letters += len(block)
            case Kind.FILTERED:
                self.statistics.filtered += len(block)

    # -- what follows ------------------------------------------------------------------------------------------------

    def _go_on(self, now: float, actions: list[Action]) -> None:
        # First, as what waited behind rows that are given up is weighed now, and may be a storm.
        if self._budgeted:
            self._give_up(now, actions)
        if (state := self._brake.broke_out(now)) is not None:
            actions.append(TellGroup(state))
        slots, withheld = self._assignment.slots(), self._brake.withholds
        actions += self._outbox.go_on(slots, now, urgent=self._urgent, withheld=withheld)
        if self._jobs:
            self._retry(now, actions)
        self._dispatch(now, actions)
        if self._drains:
            self._finish_drains(now, actions)
        if not self._config.exactly_once and now >= self._commit_at:
            self._commit(now, actions)
        self._set_gate(actions)
        if self._stop is not None:
            self._finish_stop(now, self._stop, actions)

    def _retry(self, now: float, actions: list[Action]) -> None:
        for number, job in list(self._jobs.items()):
            if job.retry_at is None or job.retry_at > now:
                continue
            job.batch, job.retry_at, job.attempt = self._still_ours(job.batch, job.closes), None, job.attempt + 1
            if len(job.batch):
                actions.append(RunStage(number, job.stage, job.batch, job.attempt))
            else:
                del self._jobs[number]
                self._stages[job.stage].busy = False

    def _give_up(self, now: float, actions: list[Action]) -> None:
        """Write dead letters of the rows that cannot make it, where a budget says so."""
        for index, budget in self._budgeted:
            late = self._stages[index].batcher.expired(now) if self._ready(index) else None
            if late is not None:
                self._end([budget.letters(late)], now, actions)

    def _ready(self, index: int) -> bool:
        """Whether a stage may get a batch."""
        stage = self._stages[index]
        return not stage.busy and stage.batcher.rows > 0 and not self._crowded(index + 1)

    def _dispatch(self, now: float, actions: list[Action]) -> None:
        for index in reversed(range(len(self._stages))):
            stage = self._stages[index]
            if not self._ready(index):
                continue
            taken = stage.batcher.take(now, stage.growth)
            if taken is None:
                continue
            batch, reason = taken
            number = self._number()
            self._jobs[number] = _Job(index, batch, self._closes)
            stage.busy = True
            self._retries.earn()
            self.statistics.flushes[index, reason] = self.statistics.flushes.get((index, reason), 0) + 1
            actions.append(RunStage(number, index, batch))

    def _crowded(self, index: int) -> bool:
        """Whether a stage has enough to do for now; past the last one, whether the sink has."""
        if index == len(self._stages):
            return self._outbox.crowded
        batcher, most = self._stages[index].batcher, self._stages[index].max_rows
        return batcher.rows >= 2 * most or batcher.size_bytes >= self._config.budget.size_bytes

    def _commit(self, now: float, actions: list[Action]) -> None:
        changed: dict[TopicPartition, int] = {}
        for slot in filter(self._to_commit, self._assignment.slots()):
            changed[slot.partition] = slot.committed = self._position(slot)
            slot.unsure = False
        if changed:
            actions.append(Commit(changed))
            self._commit_at = now + self._config.commit_interval_s

    def _set_gate(self, actions: list[Action]) -> None:
        wanted = self._gauge.room and self._stop is None and not self._brake.state.paused
        if wanted != self._gate_open:
            self._gate_open = wanted
            actions.append(Gate(wanted))

    def _drain(self, revoke: Revoking) -> _Drain:
        slots = [slot for partition in revoke.partitions if (slot := self._assignment.of(partition)) is not None]
        return _Drain(tuple(slot.number for slot in slots), revoke)

    def _finish_drains(self, now: float, actions: list[Action]) -> None:
        for drain in list(self._drains):
            slots = [slot for number in drain.slots if (slot := self._assignment.by_number(number)) is not None]
            revoke = drain.revoke
            if self._worth_waiting(revoke.deadline, now) and any(slot.ledger.unsettled for slot in slots):
                continue
            self._drains.remove(drain)
            actions.append(Released(revoke.partitions, self._positions(slots), revoke.number))
            self._close(revoke.partitions)

    def _finish_stop(self, now: float, stop: Stop, actions: list[Action]) -> None:
        if self._gauge.rows and self._worth_waiting(stop.deadline, now):
            return
        unsettled = sum(slot.ledger.unsettled for slot in self._assignment.slots())
        actions.append(Stopped(self.positions(), unsettled))

    def _worth_waiting(self, deadline: float, now: float) -> bool:
        """Whether what is on its way may still be finished and committed."""
        return now < deadline and not self._brake.withholds

    def _close(self, partitions: Iterable[TopicPartition]) -> None:
        closed: set[int] = set()
        for partition in partitions:
            slot = self._assignment.close(partition)
            if slot is not None:
                self._closes += 1
                closed.add(slot.number)
                self._gauge.add(-slot.ledger.rows, -slot.ledger.size_bytes)
        for stage in self._stages:
            stage.batcher.drop(closed)
        if closed:
            self._outbox.forget(closed)

    def _still_ours(self, batch: MicroBatch, closes: int) -> MicroBatch:
        """The rows whose slots are open, given how many had been closed when all of them were."""
        if closes == self._closes:
            return batch
        numbers = np.unique(batch.origin.slot)
        closed = [number for number in numbers if self._assignment.by_number(int(number)) is None]
        if not closed:
            return batch
        mine = ~np.isin(batch.origin.slot, closed)
        self.statistics.dropped_stale += len(batch) - int(mine.sum())
        return batch.take(mine)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers


def _ascending(parts: list[Int], *, once: bool) -> Int:
    """All of these ordinals, each of the parts ascending; ``once``: one that is there again counts once."""
    if once:
        return np.unique(np.concatenate(parts))
    return parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))
