"""Everything around an engine, as a hypothesis state machine: a topic, its group, stages that answer when they like.

What becomes of a record is fixed when it is produced, so it is known at any time what a reader has to find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Final, Literal

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamml.batch.microbatch import MicroBatch, Origin
from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.assignment import SlotNames
from streamml.engine.backpressure import Budget
from streamml.engine.batcher import BatchPolicy
from streamml.engine.dead_letters import DeadLetterLimit
from streamml.engine.engine import Engine, EngineConfig
from streamml.engine.events import (
    Action,
    Assigned,
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
    StageResult,
    Stop,
    Stopped,
    Tick,
)
from streamml.engine.identity import prediction_id
from streamml.errors import FeaturesUnavailable
from streamml.ports.sink import Refusal
from streamml.ports.source import Positions, TopicPartition
from tests.records import letters_of, predictions_of, run_of

PREDICTIONS: Final = "predictions"
LETTERS: Final = "dlq"
MOST_PARTITIONS: Final = 3
POLL: Final = 12
PATIENCE: Final = 20_000

End = Literal["prediction", "letter", "filtered", "refused"]
TOPIC_OF: Final[dict[str, str]] = {"prediction": PREDICTIONS, "letter": LETTERS, "refused": LETTERS}


@dataclass(frozen=True)
class Fate:
    """What becomes of a record: it ends in the first stage, or its rows end in the second one, or at the broker."""

    early: Literal["letter", "filtered"] | None
    rows: tuple[End, ...]


@dataclass(frozen=True, order=True)
class Row:
    """A row of the input, wherever it has got to."""

    partition: int
    offset: int
    child: int | None = None

    @property
    def id(self) -> str:
        return prediction_id(f"events/{self.partition}/", self.offset, self.child)


@dataclass
class Log:
    """One partition of the input, with gaps between offsets as transactions leave them."""

    where: TopicPartition
    fates: dict[int, Fate] = field(default_factory=dict)
    end: int = 0
    committed: int = 0
    fetched: int = 0
    slot: int | None = None
    said: int = 0

    def between(self, start: int, end: int) -> list[int]:
        return [offset for offset in self.fates if start <= offset < end]


GOOD: Final[list[tuple[End, ...]]] = [("prediction",), ("prediction", "prediction"), ("prediction",) * 3]
MIXED: Final[list[tuple[End, ...]]] = [
    ("letter",),
    ("filtered",),
    ("refused",),
    ("letter", "prediction"),
    ("refused", "prediction", "refused"),
    ("filtered", "letter", "filtered"),
]
FATES: Final = [*(Fate(None, rows) for rows in [*GOOD * 3, *MIXED]), Fate("letter", ()), Fate("filtered", ())]
fates = st.lists(st.sampled_from(FATES), min_size=1, max_size=20)
some = st.integers(0, 10**6)
spans = st.sampled_from([0.0, 0.05, 0.3, 2.0])


class Surroundings(RuleBasedStateMachine):
    """What is true under both guarantees; the sink and what follows from it are the subclasses'."""

    exactly_once: ClassVar[bool]
    limit: ClassVar = DeadLetterLimit(1.0, 10**9)

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.failed = False
        self.logs: list[Log] = []
        self.slots: dict[int, Log] = {}
        self.expected: dict[Row, str] = {}
        self.seen: list[tuple[str, Row]] = []

    @initialize(
        partitions=st.integers(1, MOST_PARTITIONS),
        explodes=st.booleans(),
        rows=st.tuples(st.integers(1, 8), st.integers(1, 8)),
        budget=st.integers(10, 40),
        outbound=st.integers(2, 40),
        interval_s=st.sampled_from([0.0, 0.2, 2.0]),
        ordered=st.booleans(),
        backlog=fates,
    )
    def begin(
        self,
        partitions: int,
        explodes: bool,
        rows: tuple[int, int],
        budget: int,
        outbound: int,
        interval_s: float,
        ordered: bool,
        backlog: list[Fate],
    ) -> None:
        self.explodes = explodes
        self.config = EngineConfig(
            stages=(BatchPolicy(rows[0], explodes=explodes), BatchPolicy(rows[1])),
            prediction_topic=PREDICTIONS,
            dead_letter_topic=LETTERS,
            dead_letter_limit=self.limit,
            budget=Budget(budget, 10**9),
            exactly_once=self.exactly_once,
            ordered=ordered or self.exactly_once,
            commit_interval_s=interval_s,
            max_outbound_rows=outbound,
        )
        self.logs = [Log(TopicPartition("events", number)) for number in range(partitions)]
        for place in range(partitions):
            self.produce(place, backlog, 0)
        self.start()
        self.assign(0, MOST_PARTITIONS)

    def start(self) -> None:
        """A new worker, which knows nothing."""
        self.names = SlotNames()
        self.engine = Engine(self.config, self.names)
        self.jobs: list[RunStage] = []
        self.gate = True
        self.revoking: tuple[TopicPartition, ...] | None = None
        self.stopping = False
        self.settled: set[tuple[int, Row]] = set()
        self.slots.clear()
        for log in self.logs:
            log.slot = None

    # -- the engine, obeyed -----------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        engine, self.failed = self.engine, True
        for action in engine.handle(event, self.now):
            assert self.engine is engine, f"{action} after the end"
            self.obey(action)
        self.failed = False

    def obey(self, action: Action) -> None:
        match action:
            case RunStage():
                self.take_job(action)
            case Settled():
                for block in action.outcomes:
                    self.settle(block)
            case Released():
                self.release(action)
            case Stopped():
                self.leave(action)
            case Gate():
                self.gate = action.open
            case Fail():
                raise action.error
            case _:
                raise AssertionError(f"{action} is not of this guarantee")

    def take_job(self, job: RunStage) -> None:
        assert all(one.job != job.job for one in self.jobs)
        assert all(one.stage != job.stage for one in self.jobs), "a stage runs one batch at a time"
        assert 0 < len(job.batch) <= self.config.stages[job.stage].max_rows
        assert set(job.batch.origin.slot.tolist()) <= self.open_slots()
        self.jobs.append(job)

    def settle(self, block: Outcomes) -> None:
        """A row settles once an assignment, as what it was to become, when a reader finds it."""
        for slot, row in self.rows(block.origin):
            assert (slot, row) not in self.settled, f"{row} was settled twice"
            self.settled.add((slot, row))
            topic = {Kind.PREDICTION: PREDICTIONS, Kind.DEAD_LETTER: LETTERS}.get(block.kind)
            assert self.expected.get(row) == topic
            assert topic is None or self.is_answered(row), f"{row} was settled before it was written"

    def open_slots(self) -> set[int]:
        return {log.slot for log in self.logs if log.slot is not None}

    def rows(self, origin: Origin) -> list[tuple[int, Row]]:
        """Rows with their slots."""
        pairs = enumerate(zip(origin.slot.tolist(), origin.offset.tolist(), strict=True))
        return [
            (slot, Row(self.slots[slot].where.partition, offset, origin.child_at(index)))
            for index, (slot, offset) in pairs
        ]

    def going(self, send: Send) -> tuple[list[tuple[str, Row]], tuple[Refusal, ...]]:
        """What the broker will write of a `Send`, and what it refuses."""
        written: list[tuple[str, Row]] = []
        refusals: list[Refusal] = []
        for number, (block, outcomes) in enumerate(zip(send.blocks, send.outcomes, strict=True)):
            assert len(block) == len(outcomes)
            for index, (slot, row) in enumerate(self.rows(outcomes.origin)):
                assert slot in self.open_slots(), f"{row} is of an assignment that is over"
                assert block.values[index] == str(row.offset).encode()
                if block.topic == LETTERS:
                    assert block.keys[index] == row.id.encode()
                if block.topic == PREDICTIONS and self.expected[row] == LETTERS:
                    refusals.append(Refusal(number, index, "Too large."))
                else:
                    written.append((block.topic, row))
        return written, tuple(refusals)

    # -- what the subclasses know -----------------------------------------------------------------------------------

    def is_answered(self, row: Row) -> bool:
        """Whether the broker has the row."""
        raise NotImplementedError

    def drop(self, some: int) -> None:
        """The worker is gone; ``some`` decides what becomes of what it had under way."""
        raise NotImplementedError

    def fence(self, logs: Sequence[Log]) -> None:
        """The group is of another generation."""
        raise NotImplementedError

    def commit(self, positions: Positions) -> None:
        """Positions that a worker says when it gives partitions up."""
        raise NotImplementedError

    def work_elsewhere(self, log: Log, rows: list[tuple[str, Row]], position: int) -> None:
        """Another member of the group writes these rows and commits."""
        raise NotImplementedError

    # -- the topic --------------------------------------------------------------------------------------------------

    @rule(place=some, new=fates, gap=st.sampled_from([0, 0, 0, 2]))
    def produce(self, place: int, new: list[Fate], gap: int) -> None:
        log = self.logs[place % len(self.logs)]
        for fate in new:
            log.fates[log.end] = fate
            self.expect(log, log.end, fate)
            log.end += 1
        log.end += gap

    def expect(self, log: Log, offset: int, fate: Fate) -> None:
        if fate.early is not None:
            found: dict[int | None, str] = {None: fate.early}
        elif self.explodes:
            found = dict(enumerate(fate.rows))
        else:
            found = {None: fate.rows[0]}
        for child, end in found.items():
            if end in TOPIC_OF:
                self.expected[Row(log.where.partition, offset, child)] = TOPIC_OF[end]

    @precondition(lambda self: self.may_poll())
    @rule(first=some, most=st.integers(1, POLL))
    def poll(self, first: int, most: int) -> None:
        runs, reached = [], {}
        for log in self.in_turn(first):
            offsets = log.between(log.fetched, log.end)[:most]
            if log.slot is None:
                continue
            if offsets:
                runs.append(run_of(offsets, log.where))
                log.fetched = offsets[-1] + 1
                most -= len(offsets)
            if log.fetched < log.end and not log.between(log.fetched, log.end):
                reached[log.where] = log.fetched = log.end
        self.tell(Polled(runs, reached))

    def in_turn(self, first: int) -> list[Log]:
        first %= len(self.logs)
        return self.logs[first:] + self.logs[:first]

    # -- the stages -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.jobs)
    @rule(which=some)
    def stage_done(self, which: int) -> None:
        job = self.jobs.pop(which % len(self.jobs))
        self.tell(StageDone(job.job, self.first(job.batch) if job.stage == 0 else self.second(job.batch)))

    @precondition(lambda self: self.jobs)
    @rule(which=some, random=st.floats(0, 0.99))
    def stage_failed(self, which: int, random: float) -> None:
        job = self.jobs.pop(which % len(self.jobs))
        self.tell(StageFailed(job.job, FeaturesUnavailable("Away."), random))

    def first(self, batch: MicroBatch) -> StageResult:
        found = [self.slots[slot].fates[row.offset] for slot, row in self.rows(batch.origin)]
        early = np.array([fate.early or "" for fate in found])
        ended = [letters_of(batch.take(early == "letter")), _filtered(batch.take(early == "filtered"))]
        on = batch.take(early == "")
        if self.explodes:
            on = _exploded(on, [len(fate.rows) for fate in found if fate.early is None])
        return StageResult(on, ended)

    def second(self, batch: MicroBatch) -> StageResult:
        rows = [(self.slots[slot].fates[row.offset], row.child or 0) for slot, row in self.rows(batch.origin)]
        end = np.array([fate.rows[child] for fate, child in rows])
        letter, filtered = end == "letter", end == "filtered"
        ended = [
            letters_of(batch.take(letter)),
            _filtered(batch.take(filtered)),
            predictions_of(batch.take(~letter & ~filtered)),
        ]
        return StageResult(batch.take(slice(0, 0)), ended)

    # -- the group --------------------------------------------------------------------------------------------------

    @precondition(
        lambda self: self.revoking is None and not self.stopping and any(log.slot is None for log in self.logs)
    )
    @rule(first=some, most=st.integers(1, MOST_PARTITIONS))
    def assign(self, first: int, most: int) -> None:
        self.give([log for log in self.in_turn(first) if log.slot is None][:most])

    @precondition(lambda self: self.may_rebalance())
    @rule(first=some, most=st.integers(1, MOST_PARTITIONS))
    def assign_again_without_a_word_of_the_loss(self, first: int, most: int) -> None:
        self.give([log for log in self.in_turn(first) if log.slot is not None][:most])

    def give(self, logs: Sequence[Log]) -> None:
        self.fence(logs)
        for place, log in enumerate(logs):
            log.slot = len(self.names.prefixes) + place
            log.fetched = log.said = log.committed
            self.slots[log.slot] = log
        self.tell(Assigned({log.where: log.committed for log in logs}))

    @precondition(lambda self: self.may_rebalance())
    @rule(first=some, most=st.integers(1, MOST_PARTITIONS), budget_s=spans)
    def revoke(self, first: int, most: int, budget_s: float) -> None:
        self.revoking = tuple(log.where for log in self.in_turn(first) if log.slot is not None)[:most]
        self.tell(Revoking(self.revoking, self.now + budget_s, number=1))

    def release(self, released: Released) -> None:
        assert released.partitions == self.revoking
        self.revoking = None
        self.commit(released.positions)
        for where in released.partitions:
            self.logs[where.partition].slot = None

    @precondition(lambda self: self.may_rebalance())
    @rule(first=some, most=st.integers(1, MOST_PARTITIONS))
    def lose(self, first: int, most: int) -> None:
        logs = [log for log in self.in_turn(first) if log.slot is not None][:most]
        self.fence(logs)
        for log in logs:
            log.slot = None
        self.tell(Lost(tuple(log.where for log in logs)))

    @precondition(
        lambda self: self.revoking is None and not self.stopping and any(log.slot is None for log in self.logs)
    )
    @rule(first=some)
    def records_of_a_partition_that_is_gone_arrive(self, first: int) -> None:
        log = next(log for log in self.in_turn(first) if log.slot is None)
        late = log.between(log.fetched, log.end)[:POLL]
        if late and self.gate:
            self.tell(Polled([run_of(late, log.where)]))

    @precondition(lambda self: any(log.slot is None for log in self.logs))
    @rule(first=some, count=st.integers(1, 10))
    def another_member_works(self, first: int, count: int) -> None:
        log = next(log for log in self.in_turn(first) if log.slot is None)
        offsets = log.between(log.committed, log.end)[:count]
        self.fence([log])
        if offsets:
            rows = [(topic, row) for row, topic in self.due(log, log.committed, offsets[-1] + 1).items()]
            self.work_elsewhere(log, rows, offsets[-1] + 1)

    @precondition(lambda self: self.revoking is None and not self.stopping and len(self.logs) < MOST_PARTITIONS)
    @rule()
    def a_partition_is_found(self) -> None:
        self.logs.append(Log(TopicPartition("events", len(self.logs))))
        self.give(self.logs[-1:])

    # -- the worker's life ------------------------------------------------------------------------------------------

    @rule(seconds=spans)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Tick())

    @precondition(lambda self: self.may_rebalance())
    @rule(budget_s=spans)
    def stop(self, budget_s: float) -> None:
        self.stopping = True
        self.tell(Stop(self.now + budget_s))

    def leave(self, stopped: Stopped) -> None:
        assert 0 <= stopped.abandoned <= self.engine.gauge.rows
        self.commit(stopped.positions)
        self.drop(0)
        self.start()

    @precondition(lambda self: self.answers())
    @rule(some=some)
    def crash(self, some: int) -> None:
        self.drop(some)
        self.start()

    def answers(self) -> list[Callable[[], None]]:
        """What may be answered now, the likeliest first."""
        done = [partial(self.stage_done, which) for which in range(len(self.jobs))]
        failed = [partial(self.stage_failed, which, 0.5) for which in range(len(self.jobs))]
        return [*done, *failed]

    def next_things(self) -> list[Callable[[], None]]:
        """What may happen now if nothing strikes, the likeliest first."""
        return self.answers() + [partial(self.poll, 0, 4)] * (self.may_poll() and self.unread())

    @rule(picks=st.lists(some, min_size=1, max_size=15))
    def things_happen_in_any_order(self, picks: list[int]) -> None:
        for pick in picks:
            found = self.next_things()
            if found:
                found[pick % len(found)]()

    @precondition(lambda self: self.may_rebalance())
    @rule(picks=st.lists(some, min_size=1, max_size=15), strike=st.sampled_from(["lose", "again", "revoke", "crash"]))
    def something_strikes_in_the_middle(self, picks: list[int], strike: str) -> None:
        self.things_happen_in_any_order(picks)
        if self.may_rebalance():
            first, most = picks[0], 1 + picks[-1] % MOST_PARTITIONS
            match strike:
                case "lose":
                    self.lose(first, most)
                case "again":
                    self.assign_again_without_a_word_of_the_loss(first, most)
                case "revoke":
                    self.revoke(first, most, 0.3)
                case "crash":
                    self.crash(first)

    @rule(steps=st.integers(1, 30))
    def all_goes_well(self, steps: int) -> None:
        for _ in range(steps):
            self.go_on()

    def go_on(self) -> bool:
        """The next thing that happens where nothing goes wrong; whether there is any."""
        if found := self.next_things():
            found[0]()
        elif (wake_at := self.engine.wake_at()) is not None:
            self.now = max(self.now, wake_at)
            self.tell(Tick())
        else:
            return False
        return True

    def may_rebalance(self) -> bool:
        """Whether the group may move: nothing would come of it while nothing is on its way."""
        return self.revoking is None and not self.stopping and bool(self.open_slots() and self.answers())

    def may_poll(self) -> bool:
        return self.gate and self.revoking is None and not self.stopping

    def unread(self) -> bool:
        return any(log.fetched < log.end for log in self.logs if log.slot is not None)

    # -- what has to be true ----------------------------------------------------------------------------------------

    def due(self, log: Log, start: int, end: int) -> dict[Row, str]:
        """What a reader has to find of these records."""
        rows = [
            Row(log.where.partition, offset, child) for offset in log.between(start, end) for child in (None, 0, 1, 2)
        ]
        return {row: self.expected[row] for row in rows if row in self.expected}

    @invariant()
    def what_is_on_its_way_is_counted_and_bounded(self) -> None:
        if self.logs:
            unread = sum(len(log.between(log.fetched, log.end)) for log in self.logs if log.slot is not None)
            behind = sum(len(log.between(log.committed, log.end)) for log in self.logs if log.slot is not None)
            assert self.engine.gauge.rows >= 0
            assert self.engine.gauge.most_rows < self.config.budget.rows + POLL
            assert behind - unread >= 0

    def teardown(self) -> None:
        """In the end all goes well, and then nothing is missing."""
        if not self.logs or self.failed:
            return
        for _ in range(PATIENCE):
            if not self.go_on():
                if all(log.slot is not None for log in self.logs):
                    break
                self.assign(0, MOST_PARTITIONS)
        assert [log.committed for log in self.logs] == [log.end for log in self.logs]
        assert self.engine.idle
        assert set(self.seen) == {(topic, row) for row, topic in self.expected.items()}
        if self.config.ordered:
            self.check_order()

    def check_order(self) -> None:
        """First occurrences are in the order of their partition; a letter for what was refused comes when it can."""
        for topic in (PREDICTIONS, LETTERS):
            for log in self.logs:
                rows = [row for where, row in self.seen if where == topic and row.partition == log.where.partition]
                first = [row for row in dict.fromkeys(rows) if not self.was_refused(log, row)]
                assert first == sorted(first, key=lambda row: (row.offset, row.child or 0))

    def was_refused(self, log: Log, row: Row) -> bool:
        fate = log.fates[row.offset]
        return fate.early is None and fate.rows[row.child or 0] == "refused"


def _filtered(batch: MicroBatch) -> Outcomes:
    return Outcomes(Kind.FILTERED, batch.origin)


def _exploded(batch: MicroBatch, counts: list[int]) -> MicroBatch:
    children = [child for count in counts for child in range(count)]
    lasts = [child == count - 1 for count in counts for child in range(count)]
    whole = batch.take(np.repeat(np.arange(len(batch)), counts))
    origin = whole.origin
    exploded = Origin(
        origin.slot,
        origin.ordinal,
        origin.offset,
        origin.timestamp,
        origin.flags,
        np.array(children, np.int64),
        np.array(lasts, bool),
    )
    return MicroBatch(exploded, whole.columns)
