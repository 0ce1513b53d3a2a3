"""Latest predictions in the driver: what Redis would hold, beside a topic and instead of one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import streamml as sm
from streamml.errors import ConfigError
from streamml.settings.settings import WorkerSettings
from streamml.testing import TopologyDriver, faults
from tests.testing.shop import Verdict, accounts, driver, payment, payments, score
from tests.testing.test_faults import EVERYTHING, GUARANTEES, Guarantee

EACH_FORM = pytest.mark.parametrize("form", ["beside", "instead"])


def shop(form: str, ttl: str | None = None, **source: Any) -> sm.Topology:
    if form == "beside":
        return replace(payments(**source), latest=sm.RedisSink("verdicts", ttl=ttl))
    return replace(payments(**source), sink=sm.RedisSink("verdicts", schema=Verdict, key="id", ttl=ttl))


def scored(run: TopologyDriver, key: str) -> float | None:
    found = run.latest(key)
    return None if found is None or found.value is None else float(json.loads(found.value)["score"])


@EACH_FORM
def test_d3_the_driver_shows_the_newest_prediction_of_a_key_by_its_records_time(form: str) -> None:
    """D3.12."""
    run = driver(shop(form))
    for amount, second in ((10, 5), (20, 9), (30, 7)):
        run.send(payment(1, amount=amount), timestamp=second * 1000)
    run.settle()
    assert scored(run, "p1") == 2.0
    found = run.latest("p1")
    assert found is not None
    assert (found.id, found.model, found.event_time_ms) == ("payments/0/1", "fraud@test", 9000)
    assert run.latest("p2") is None
    assert [one.value["score"] for one in run.predictions()] == [1.0, 2.0, 3.0]


@EACH_FORM
def test_a_prediction_is_gone_when_its_ttl_is_over(form: str) -> None:
    run = driver(shop(form, ttl="10s"))
    run.send(payment(1))
    run.settle()
    run.advance("9s")
    assert scored(run, "p1") == 4.0
    run.advance("2s")
    assert run.latest("p1") is None


@EACH_FORM
def test_d1_nothing_is_committed_and_little_taken_while_redis_is_away(form: str) -> None:
    """D1.8, B2: the worker takes no more than its budget, and goes on by itself."""
    run = driver(shop(form), settings=WorkerSettings(max_in_flight_rows=100, max_poll_rows=50))
    run.latest_store.fail("Redis is away.")
    for number in range(1000):
        run.send(payment(number))
    with pytest.raises(TimeoutError, match="Redis is away"):
        run.settle(within="10m")
    assert sum(run.commits().values()) == 0
    assert run.statistics.polled <= 150
    run.latest_store.recover()
    run.settle()
    assert sum(run.commits().values()) == 1000
    assert {scored(run, f"p{number}") for number in range(1000)} == {4.0}


def test_a_prediction_that_has_no_key_is_a_dead_letter_where_redis_alone_would_have_it() -> None:
    topology = shop("instead", on_tombstone="forward")
    keyless = sm.Transform(
        lambda columns: {
            "place": np.array([None if one == "ann" else one.encode() for one in columns["account"]], object)
        },
        inputs=("account",),
        outputs={"place": "bytes?"},
    )
    run = driver(replace(topology, steps=(*topology.steps, keyless), sink=replace(topology.sink, key="place")))
    run.send(payment(1, account="ann"))
    run.send(payment(2, account="bob"))
    run.send(None, key="ann")
    run.send(None)
    run.settle()
    assert {(one.offset, one.message.split(", and ")[-1]) for one in run.dead_letters()} == {
        (0, "The prediction has no key to be kept by."),
        (3, "no key to be kept by."),
    }
    ann, bob = run.latest("ann"), run.latest("bob")
    assert ann is not None
    assert (ann.value, ann.flags) == (None, "tombstone")
    assert bob is not None


@EACH_FORM
@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_d1_d3_under_all_faults_redis_has_the_newest_of_each_key(form: str, guarantee: Guarantee) -> None:
    """D1.8, D3.12."""
    if (form, guarantee) == ("instead", "exactly_once"):
        pytest.skip("It is refused, as the next test shows.")
    report = faults.run(
        shop(form),
        [payment(number % 300, amount=number % 50, account=("ann", "bob")[number % 2]) for number in range(900)],
        EVERYTHING,
        guarantee=guarantee,
        models={"fraud": score},
        prepare=lambda driver: driver.features(accounts, {"ann": {"mean": 5.0}}),
    )
    report.assert_nothing_lost()
    assert report.produced == report.predicted + report.dead_lettered + report.filtered


def test_d2_exactly_once_is_refused_where_redis_alone_has_the_predictions() -> None:
    """D2.7."""
    with pytest.raises(ConfigError, match="Process at least once"):
        driver(shop("instead"), settings=WorkerSettings(processing_guarantee="exactly_once"))
