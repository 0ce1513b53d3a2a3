"""What a topology does with rows that cannot make their latency budget, in virtual time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from pydantic import BaseModel

import streamml as sm
from streamml.ops.replay.replay import Replay
from streamml.ops.replay.topology import replayed
from streamml.testing.driver import TopologyDriver
from streamml.topology.check import problems
from tests.testing.shop import driver, payment, payments

OnLate = Literal["score", "last", "dead_letter"]


def pressed(on_late: OnLate) -> sm.Topology:
    """The model has 50 ms."""
    plain = payments()
    score = plain.steps[-1]
    assert isinstance(score, sm.Onnx)
    batching = sm.Batching(max_batch_size=64, latency_budget="50ms", on_late=on_late)
    scored = sm.Onnx(score.name, outputs=score.outputs, batching=batching)
    order: Any = "none" if on_late == "last" else "partition"
    sink = sm.Sink(plain.destination, schema=plain.sink.schema, key=plain.sink.key, order=order)
    return sm.Topology(
        "payments",
        source=plain.source,
        steps=[*plain.steps[:-1], scored],
        sink=sink,
        dead_letters=sm.DeadLetterQueue(plain.dead_letters.topic, max_ratio=0.05, min_sample=20),
    )


def run_of(topology: sm.Topology) -> TopologyDriver:
    """The model takes 10 ms."""
    return driver(topology, service_time={"fraud": lambda rows: 0.010})


@pytest.mark.parametrize("on_late", ["score", "last", "dead_letter"])
def test_m2_a_replay_asks_no_row_for_its_age(on_late: OnLate) -> None:
    """M2.3."""
    replay = Replay(1, "payments", (), {}, "again", "again.dlq", {}, "live", None, "ann@host", 0)
    run = run_of(replayed(pressed(on_late), replay))
    for number in range(100):
        run.send(payment(number), timestamp=int(run.clock.now() * 1000) - 86_400_000)
    run.settle()
    assert ["late" in one.flags for one in run.predictions()] == [False] * 100


@pytest.mark.parametrize("on_late", ["score", "last", "dead_letter"])
def test_m2_every_row_ends_as_its_topology_says(on_late: OnLate) -> None:
    """M2.1, M2.4, M2.5: of 240 payments, the first 200 are a second late. Being late is no storm (E4)."""
    run = run_of(pressed(on_late))
    late = int(run.clock.now() * 1000) - 1_000
    for number in range(200):
        run.send(payment(number), timestamp=late)
    for number in range(200, 240):
        run.send(payment(number))
    run.settle()
    flags = ["late" in one.flags for one in run.predictions()]
    if on_late == "dead_letter":
        letters = run.dead_letters()
        assert [one.offset for one in letters] == list(range(200))
        assert {(one.step, one.error) for one in letters} == {("fraud", "DeadlineExceeded")}
        assert flags == [False] * 40
    else:
        assert (len(flags), sum(flags)) == (240, 200)
    if on_late == "last":
        assert flags[:40] == [False] * 40
    if on_late == "score":
        assert flags[:200] == [True] * 200


class Event(BaseModel):
    id: str
    amount: float
    at: datetime


class Score(BaseModel):
    id: str
    score: float


def doubles() -> Any:
    return lambda columns: {"score": columns["amount"] * 2}


def hurried(event_time: str | None) -> sm.Topology:
    """A model right after decoding, whose budget counts from the event's time."""
    batching = sm.Batching(latency_budget="50ms", budget_from="event", on_late="dead_letter")
    return sm.Topology(
        "payments",
        source=sm.Source("payments", schema=Event, start="earliest", event_time=event_time),
        steps=[sm.Python(doubles, inputs={"amount": "f8"}, outputs={"score": "f8"}, version="1", batching=batching)],
        sink=sm.Sink("scored", schema=Score, key="id"),
        dead_letters=sm.DeadLetterQueue("letters"),
    )


def test_m2_a_row_is_late_by_the_time_of_its_event_also_where_nothing_comes_before_the_model() -> None:
    """M2.2, M2.4."""
    run = TopologyDriver(hurried("at"))
    now = datetime.fromtimestamp(run.clock.now(), UTC)
    run.send(Event(id="old event", amount=1.0, at=now - timedelta(seconds=1)), timestamp=now)
    run.send(Event(id="old record", amount=1.0, at=now), timestamp=now - timedelta(seconds=1))
    run.settle()
    assert [one.value["id"] for one in run.predictions()] == ["old record"]
    assert [one.error for one in run.dead_letters()] == ["DeadlineExceeded"]


def test_a_budget_from_a_time_that_no_event_has_is_told() -> None:
    (sentence,) = problems(hurried(None))
    assert "the source names no event_time" in sentence


@pytest.mark.parametrize(("model_s", "late"), [(0.040, False), (0.060, True)])
def test_m2_a_prediction_whose_time_ended_in_its_own_model_is_flagged(model_s: float, late: bool) -> None:
    """M2.1."""
    run = driver(service_time={"fraud": lambda rows: model_s})
    run.send(payment(1))
    run.settle()
    assert ["late" in one.flags for one in run.predictions()] == [late]
