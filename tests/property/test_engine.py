"""The whole engine under random schedules: nothing lost, doubled or out of order, commits only behind results."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.assignment import SlotNames
from streamml.engine.backpressure import Budget
from streamml.engine.batcher import BatchPolicy
from streamml.engine.dead_letters import DeadLetterLimit
from streamml.engine.engine import Engine, EngineConfig
from streamml.engine.events import (
    Action,
    Assigned,
    Commit,
    Event,
    Fail,
    Gate,
    Lost,
    Polled,
    Released,
    Revoking,
    RunStage,
    Send,
    StageDone,
    StageFailed,
    StageResult,
    Stop,
    Stopped,
    Tick,
)
from streamml.errors import FeaturesUnavailable
from streamml.ports.sink import Delivered, Refusal
from streamml.ports.source import Positions, TopicPartition
from tests.records import letters_of, predictions_of, run_of

PARTITIONS = [TopicPartition("events", 0), TopicPartition("events", 1)]
BUDGET = Budget(rows=40, size_bytes=10_000)
POLL = 15
CONFIG = EngineConfig(
    stages=(BatchPolicy(8), BatchPolicy(5)),
    prediction_topic="predictions",
    dead_letter_topic="dlq",
    dead_letter_limit=DeadLetterLimit(1.0, 10**9),
    budget=BUDGET,
    commit_interval_s=0.2,
    max_outbound_rows=20,
)


class World:
    """A broker with two partitions, stages and a sink that answer in random order, and a referee."""

    def __init__(self, seed: int, records: int) -> None:
        self.random = random.Random(seed)
        self.now = 100.0
        self.records = records
        self.names = SlotNames()
        self.engine = self.new_engine()
        self.committed = dict.fromkeys(PARTITIONS, 0)
        self.fetched: dict[TopicPartition, int] = {}
        self.pending: list[Event] = []
        self.gate = True
        self.ended: dict[TopicPartition, list[int]] = defaultdict(list)
        self.topics: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.stopped: Stopped | None = None

    def new_engine(self) -> Engine:
        return Engine(CONFIG, self.names)

    def tell(self, event: Event) -> None:
        for action in self.engine.handle(event, self.now):
            self.obey(action)

    def obey(self, action: Action) -> None:
        match action:
            case RunStage():
                self.pending.append(self.answer(action))
            case Send():
                for block, outcomes in zip(action.blocks, action.outcomes, strict=True):
                    self.deliver(block.topic, outcomes)
                refused = self.random.random() < 0.1 and action.outcomes[0].kind is Kind.PREDICTION
                refusals = (Refusal(0, 0, "too large"),) if refused else ()
                self.pending.append(Delivered(action.token, refusals))
            case Commit(positions=positions) | Released(positions=positions):
                self.check_commit(positions)
            case Stopped(positions=positions):
                self.check_commit(positions)
                self.stopped = action
            case Gate():
                self.gate = action.open
            case Fail():
                raise action.error

    def answer(self, action: RunStage) -> Event:
        if self.random.random() < 0.15:
            return StageFailed(action.job, FeaturesUnavailable("away"), self.random.random())
        batch = action.batch
        dice = np.array([self.random.random() for _ in range(len(batch))])
        bad, dropped, good = batch.take(dice < 0.1), batch.take((dice >= 0.1) & (dice < 0.3)), batch.take(dice >= 0.3)
        ended = [letters_of(bad), Outcomes(Kind.FILTERED, dropped.origin)]
        if action.stage == 0:
            return StageDone(action.job, StageResult(good, ended))
        return StageDone(action.job, StageResult(good.take(slice(0, 0)), [*ended, predictions_of(good)]))

    def deliver(self, topic: str, outcomes: Outcomes) -> None:
        for slot, offset in zip(outcomes.origin.slot.tolist(), outcomes.origin.offset.tolist(), strict=True):
            self.topics[topic, slot].append(offset)

    def check_commit(self, positions: Positions) -> None:
        self.committed.update(positions)

    def step(self) -> None:
        self.now += self.random.random() * 0.3
        choice = self.random.random()
        if choice < 0.02 and self.fetched:
            self.rebalance()
        elif choice < 0.4 and self.gate and self.fetched:
            self.poll()
        elif self.pending:
            self.tell(self.pending.pop(self.random.randrange(len(self.pending))))
        else:
            self.tell(Tick())
        gauge = self.engine.gauge
        assert gauge.most_rows < BUDGET.rows + POLL

    def poll(self) -> None:
        partition = self.random.choice(list(self.fetched))
        start = self.fetched[partition]
        offsets = list(range(start, min(self.records, start + self.random.randint(1, POLL))))
        if offsets:
            self.fetched[partition] = offsets[-1] + 1
            self.tell(Polled([run_of(offsets, partition)]))

    def rebalance(self) -> None:
        partition = self.random.choice(list(self.fetched))
        del self.fetched[partition]
        if self.random.random() < 0.5:
            self.tell(Lost((partition,)))
        else:
            self.tell(Revoking((partition,), self.now))
        self.assign(partition)

    def assign(self, partition: TopicPartition) -> None:
        self.fetched[partition] = self.committed[partition]
        self.tell(Assigned({partition: self.committed[partition]}))


def run_world(seed: int, records: int) -> World:
    world = World(seed, records)
    for partition in PARTITIONS:
        world.assign(partition)
    for _ in range(20_000):
        world.step()
        if all(position == records for position in world.committed.values()):
            break
    world.tell(Stop(world.now + 10_000))
    while world.pending:
        world.now += 1
        world.tell(world.pending.pop())
        world.tell(Tick())
    return world


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 150))
def test_d1_d4_d6_everything_ends_in_order_and_is_committed(seed: int, records: int) -> None:
    """D1.1, D4.1, D5.1, D6.1."""
    world = run_world(seed, records)
    assert world.committed == dict.fromkeys(PARTITIONS, records)
    assert world.stopped is not None
    assert world.stopped.abandoned == 0
    for (topic, _), offsets in world.topics.items():
        if topic == "predictions":
            assert offsets == sorted(set(offsets))


def test_b2_the_budget_bounds_what_is_in_flight_exactly() -> None:
    """B2.1."""
    world = World(1, 1000)
    world.assign(PARTITIONS[0])
    while world.gate:
        world.poll()
    assert BUDGET.rows <= world.engine.gauge.rows < BUDGET.rows + POLL


def test_d6_results_of_a_lost_assignment_are_never_sent() -> None:
    """D6.1."""
    world = World(3, 1000)
    world.assign(PARTITIONS[0])
    world.poll()
    world.tell(Lost((PARTITIONS[0],)))
    while world.pending:
        world.tell(world.pending.pop())
    assert not world.topics
    assert world.committed[PARTITIONS[0]] == 0
    assert world.engine.idle
