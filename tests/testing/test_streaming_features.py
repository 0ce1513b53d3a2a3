"""A slow set from last night's load and a fast one from a stream, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import streamml as sm
from streamml.errors import TransientError
from streamml.testing import TopologyDriver
from streamml.topology.check import problems
from tests.testing.shop import accounts, payment, payments, score

START = datetime(2024, 1, 1, tzinfo=UTC)


def recent(**more: Any) -> sm.FeatureSet:
    columns = {"count": sm.f4(default=0.0)}
    return sm.FeatureSet("recent", key="account", columns=columns, ttl="1h", **{"kind": "streaming", **more})


def both(fast: sm.FeatureSet) -> TopologyDriver:
    made = payments()
    steps = [sm.FeatureLookup(accounts, fast) if isinstance(step, sm.FeatureLookup) else step for step in made.steps]
    run = TopologyDriver(replace(made, steps=tuple(steps)), models={"fraud": score})
    run.features(accounts, {"ann": {"mean": 5.0}})
    return run


def test_f6_slow_and_fast_sets_of_one_entity_are_joined_and_flagged_each_by_its_own() -> None:
    """F6.1, F6.7."""
    run, fast = both(recent(max_default_ratio=1.0)), recent()
    run.features(fast, {"ann": {"count": 1.0}})
    run.send(payment(1))
    run.settle()
    run.features(fast, {"ann": {"count": 2.0}}, event_time=START - timedelta(minutes=30))
    run.advance("59min")
    run.send(payment(2))
    run.settle()
    run.advance("2min")
    run.send(payment(3))
    run.settle()
    run.features(fast, {"ann": {"count": 3.0}})
    run.send(payment(4))
    run.settle()
    flags = [one.flags for one in run.predictions()]
    fresh, stale = ("accounts@v1", "recent@live"), ("accounts@v1", "recent@live:stale")
    assert flags == [fresh, fresh, stale, fresh]


def test_f3_a_writer_that_died_stops_the_scoring_where_that_is_asked_for() -> None:
    """F3.2, F6.7, F6.8: nothing is lost meanwhile, and rows that waited do not go on waiting."""
    fast = recent(max_default_ratio=0.1)
    run = both(fast)
    people = [f"a{number}" for number in range(100)]
    run.features(accounts, {one: {"mean": 5.0} for one in people})
    run.features(fast, {one: {"count": 1.0} for one in people})
    run.advance("2h")
    for number, one in enumerate(people):
        run.send(payment(number, account=one))
    with pytest.raises(TimeoutError, match="See that its writer runs and keeps up"):
        run.settle(within="10min")
    run.features(fast, {one: {"count": 2.0} for one in people})
    run.settle()
    assert {one.flags[:2] for one in run.predictions()} == {("accounts@v2", "recent@live:from_future")}
    assert len(run.predictions()) == 100


def test_a_streaming_set_that_nobody_writes_makes_the_worker_wait() -> None:
    """F6.3."""
    run = both(recent())
    run.send(payment(1))
    with pytest.raises((TimeoutError, TransientError), match="never written"):
        run.settle(within="1min")
    run.features(recent(), {})
    run.settle()
    assert run.predictions()[0].flags[:2] == ("accounts@v1", "recent@live:missing")


def test_f6_a_streaming_set_has_a_ttl_and_a_kind_that_there_is() -> None:
    """F6.7."""
    without = sm.FeatureSet("recent", key="account", columns={"count": sm.f4(default=0.0)}, kind="streaming")
    for declared, told in ((without, "is streaming and has no ttl"), (recent(kind="fast"), "kind")):
        made = payments()
        steps = (sm.FeatureLookup(accounts, declared), *made.steps[2:])
        assert any(told in one for one in problems(replace(made, steps=steps)))
