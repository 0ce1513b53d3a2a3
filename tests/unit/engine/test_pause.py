"""E4: what a storm of dead letters and a pause by hand let through, and what not."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import pytest

from streamml.engine.assignment import Assignment, SlotNames
from streamml.engine.batcher import BatchPolicy
from streamml.engine.brake import Brake
from streamml.engine.dead_letters import DeadLetterLimit
from streamml.engine.deadline import LatencyBudget
from streamml.engine.engine import Engine
from streamml.engine.events import (
    AbortTransaction,
    Action,
    Assigned,
    Commit,
    CommitFailed,
    CommitTransaction,
    Event,
    Gate,
    GroupTold,
    Polled,
    Released,
    Revoking,
    RunStage,
    Send,
    StageDone,
    StageResult,
    Stop,
    Stopped,
    TellGroup,
)
from streamml.engine.rows import rows_of
from streamml.ports.control import RUNNING, GroupState, Storm
from streamml.ports.sink import Delivered, TransactionEnded
from tests.property.test_engine import CONFIG
from tests.records import PARTITION, letters_of, predictions_of, run_of

T = TypeVar("T", bound=Action)

LIMIT = DeadLetterLimit(0.1, 20)
STORM = GroupState(True, "too many", "w", 1, Storm(0.5, 20))
BY_HAND = GroupState(True, "maintenance", "ann@host", 1)


class Driven:
    """An engine of one stage that fails the first ``bad`` records of each batch; its sink answers at once."""

    def __init__(self, *, exactly_once: bool = False) -> None:
        config = replace(CONFIG, stages=(BatchPolicy(1000),), dead_letter_limit=LIMIT, exactly_once=exactly_once)
        self.engine = Engine(config, SlotNames())
        self.now = 1.0
        self.next = 0
        self.tell(Assigned({PARTITION: 0}))

    def tell(self, event: Event) -> list[Action]:
        """All that comes of an event, the sink's answers included."""
        self.now += 1.0
        actions = self.engine.handle(event, self.now)
        for action in list(actions):
            if isinstance(action, Send):
                actions += self.tell(Delivered(action.token))
            if isinstance(action, CommitTransaction | AbortTransaction):
                actions += self.tell(TransactionEnded(isinstance(action, CommitTransaction)))
        return actions

    def poll(self, count: int, bad: int) -> list[Action]:
        """Take ``count`` records of which ``bad`` become dead letters."""
        (job,) = (one for one in self.take(count) if isinstance(one, RunStage))
        return self.finish(job, bad)

    def take(self, count: int) -> list[Action]:
        offsets = list(range(self.next, self.next + count))
        self.next += count
        return self.tell(Polled([run_of(offsets)]))

    def finish(self, job: RunStage, bad: int) -> list[Action]:
        ended = [letters_of(job.batch.take(slice(0, bad))), predictions_of(job.batch.take(slice(bad, None)))]
        return self.tell(
            StageDone(job.job, StageResult(job.batch.take(slice(0, 0)), [one for one in ended if len(one)]))
        )


def of(actions: list[Action], kind: type[T]) -> list[T]:
    return [one for one in actions if isinstance(one, kind)]


def committed(actions: list[Action]) -> int | None:
    found = [
        one.positions[PARTITION] for one in actions if isinstance(one, Commit | CommitTransaction) and one.positions
    ]
    return found[-1] if found else None


def test_a_storm_is_told_once_closes_the_gate_and_nothing_is_committed_until_somebody_resumes() -> None:
    """E4.1."""
    run = Driven()
    assert committed(run.poll(30, 0)) == 30
    actions = run.poll(20, 20)
    (told,) = of(actions, TellGroup)
    assert isinstance(told, TellGroup)
    assert told.state.storm == Storm(1.0, 20)
    assert "100%" in told.state.reason
    assert Gate(False) in actions
    assert committed(actions) is None
    assert not of(run.tell(GroupTold(told.state)), TellGroup)
    assert run.engine.wake_at() is None
    resumed = run.tell(GroupTold(RUNNING))
    assert Gate(True) in resumed
    assert committed(resumed) == 50
    assert not of(run.poll(19, 19), TellGroup), "the window is a new one"


def test_d2_in_transactions_a_storm_is_judged_before_it_is_committed() -> None:
    """E4.1."""
    run = Driven(exactly_once=True)
    assert committed(run.poll(30, 0)) == 30
    actions = run.poll(25, 25)
    assert of(actions, TellGroup)
    assert committed(actions) is None
    resumed = run.tell(GroupTold(RUNNING))
    assert committed(resumed) == 55
    assert sum(len(block) for one in of(resumed, Send) for block in one.blocks) == 25


def test_d2_a_storm_that_waited_behind_rows_that_are_given_up_is_judged_before_it_is_committed() -> None:
    """E4.1: two records wait for the second stage and cannot make it; the dead letters behind them come free by that."""
    late = LatencyBudget(0.001, on_late="dead_letter", step="model", model="m@1")
    stages = (BatchPolicy(1000), BatchPolicy(1000, budget=late))
    config = replace(CONFIG, stages=stages, dead_letter_limit=LIMIT, exactly_once=True)
    engine = Engine(config, SlotNames())
    engine.handle(Assigned({PARTITION: 0}), 100.0)
    (job,) = of(engine.handle(Polled([run_of(list(range(30)))]), 100.0), RunStage)
    passed, failed = job.batch.take(slice(0, 2)), job.batch.take(slice(2, None))
    actions = engine.handle(StageDone(job.job, StageResult(passed, [letters_of(failed)])), 100.0)
    assert of(actions, TellGroup)
    assert not of(actions, Send)
    assert not of(actions, CommitTransaction)


def test_predictions_that_the_broker_refuses_are_dead_letters_of_their_window() -> None:
    brake = Brake(LIMIT, "w")
    batch = rows_of([(run_of(list(range(10))), Assignment(SlotNames(), ordered=True).open(PARTITION, 0))])
    brake.weigh([predictions_of(batch)])
    brake.weigh_refused(3)
    assert brake.broke_out(1.0) is None
    brake.weigh([predictions_of(batch)])
    told = brake.broke_out(1.0)
    assert told is not None
    assert told.storm == Storm(0.15, 20)
    assert "refused predictions" in told.reason


def test_d2_a_transaction_that_is_open_when_another_worker_tells_of_a_storm_is_taken_back_and_sent_anew() -> None:
    run = Driven(exactly_once=True)
    run.poll(10, 0)
    (job,) = (one for one in run.take(10) if isinstance(one, RunStage))
    run.tell(GroupTold(STORM))
    actions = run.finish(job, 0)
    assert committed(actions) is None
    assert not of(actions, Send)
    assert committed(run.tell(GroupTold(RUNNING))) == 20


def test_a_pause_by_hand_finishes_and_commits_what_is_on_its_way() -> None:
    """E4.5."""
    run = Driven()
    (job,) = (one for one in run.take(10) if isinstance(one, RunStage))
    assert Gate(False) in run.tell(GroupTold(BY_HAND))
    assert committed(run.finish(job, 0)) == 10
    assert Gate(True) in run.tell(GroupTold(RUNNING))


def test_a_storm_is_not_forgotten_because_somebody_pauses_by_hand() -> None:
    """E4.4."""
    run = Driven()
    run.poll(20, 20)
    assert committed(run.tell(GroupTold(BY_HAND))) is None
    assert committed(run.tell(GroupTold(RUNNING))) == 20


@pytest.mark.parametrize("exactly_once", [False, True])
def test_l3_d5_who_leaves_in_a_storm_does_not_wait_and_commits_nothing(exactly_once: bool) -> None:
    run = Driven(exactly_once=exactly_once)
    (job,) = (one for one in run.take(10) if isinstance(one, RunStage))
    run.tell(GroupTold(STORM))
    (released,) = of(run.tell(Revoking((PARTITION,), run.now + 100, number=1)), Released)
    assert isinstance(released, Released)
    assert set(released.positions.values()) <= {0}
    run.finish(job, 0)
    (stopped,) = of(run.tell(Stop(run.now + 100)), Stopped)
    assert stopped == Stopped({}, 0)


def test_the_gate_is_shut_before_the_first_partition_comes_where_the_group_is_paused() -> None:
    engine = Engine(CONFIG, SlotNames())
    assert engine.handle(GroupTold(BY_HAND), 1.0) == [Gate(False)]
    assert Gate(True) not in engine.handle(Assigned({PARTITION: 0}), 2.0)


def test_e4_d5_what_was_settled_before_a_storm_is_committed_in_it_where_the_commit_failed() -> None:
    run = Driven()
    assert committed(run.poll(30, 0)) == 30
    assert of(run.poll(25, 25), TellGroup)
    assert committed(run.tell(CommitFailed((PARTITION,)))) == 30
    [stopped] = [one for one in run.tell(Stop(run.now + 5.0)) if isinstance(one, Stopped)]
    assert stopped.positions == {PARTITION: 30}
