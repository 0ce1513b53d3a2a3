"""E1: when a stage that failed is tried again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.assignment import SlotNames
from streamml.engine.backpressure import Budget
from streamml.engine.batcher import BatchPolicy
from streamml.engine.engine import Engine
from streamml.engine.events import Action, Assigned, Polled, RunStage, StageDone, StageFailed, StageResult, Tick
from streamml.engine.retry import Backoff
from streamml.errors import FeatureStoreDown, FeaturesUnavailable, ModelBusy
from tests.property.test_engine import CONFIG
from tests.records import PARTITION, run_of


def engine(records: int) -> tuple[Engine, RunStage]:
    """With one row in each batch, and the first one under way."""
    stages, budget = (BatchPolicy(1),), Budget(10_000, 10_000_000)
    made = Engine(replace(CONFIG, stages=stages, budget=budget, backoff=Backoff(0.001, 0.001)), SlotNames())
    made.handle(Assigned({PARTITION: 0}), 0.0)
    job = running(made.handle(Polled([run_of(list(range(records)))]), 0.0))
    assert job is not None
    return made, job


def running(actions: list[Action]) -> RunStage | None:
    return next((one for one in actions if isinstance(one, RunStage)), None)


def later(made: Engine) -> tuple[float, RunStage]:
    """The next try, and when it is made."""
    now = made.wake_at()
    while now is not None:
        if (job := running(made.handle(Tick(), now))) is not None:
            return now, job
        now = made.wake_at()
    raise AssertionError("Nothing is due.")


def test_e1_retries_of_a_worker_are_a_share_of_its_first_tries() -> None:
    """E1.6."""
    records = 200
    made, job = engine(records)
    now = 0.0
    for number in range(records):
        made.handle(StageFailed(job.job, FeaturesUnavailable("Not now.")), now)
        now, job = later(made)
        assert made.statistics.retries <= 10 + 0.2 * (number + 1) + now + 1e-6
        done = StageResult(job.batch.take(slice(0, 0)), [Outcomes(Kind.FILTERED, job.batch.origin)])
        job = running(made.handle(StageDone(job.job, done), now)) or job
    # Each needed one: 10 were saved up, 40 were earned, the others came with time.
    assert made.statistics.retries == records
    assert 140 <= now <= 160


def test_e1_who_was_turned_away_by_a_breaker_comes_back_when_it_said_and_has_not_tried() -> None:
    made, job = engine(1)
    for number in range(50):
        assert job.attempt == 1
        made.handle(StageFailed(job.job, FeatureStoreDown("Not now.", retry_in_s=0.5)), 0.5 * number)
        now, job = later(made)
        assert now == 0.5 * (number + 1)
    assert made.statistics.retries == 0


@pytest.mark.parametrize("retry_in_s", [0.0, -5.0, float("nan")])
def test_e1_what_says_to_ask_again_at_once_is_asked_after_a_pause(retry_in_s: float) -> None:
    """E1.2: a `Retry-After` of 0 would keep a core busy with nothing else."""
    made, job = engine(1)
    actions = made.handle(StageFailed(job.job, ModelBusy("Not now.", retry_in_s=retry_in_s), random=0.5), 1.0)
    assert running(actions) is None
    now, _ = later(made)
    assert now == pytest.approx(1.00075)
