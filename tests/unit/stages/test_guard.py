"""E1: a dependency that does not answer is left alone, by all who need it."""

from __future__ import annotations

import logging
import threading

import pytest

from streamml.clock import ManualClock
from streamml.errors import FeatureStoreDown, FeaturesUnavailable
from streamml.stages.guard import Guard, feature_store_guard


def away() -> None:
    raise FeatureStoreDown("Redis is away.")


def not_loaded() -> None:
    raise FeaturesUnavailable("The set was never loaded.")


def asked() -> str:
    pytest.fail("It was asked.")


def opened(clock: ManualClock) -> Guard:
    guard = feature_store_guard(clock)
    for _ in range(3):
        with pytest.raises(FeatureStoreDown):
            guard.ask(away)
    return guard


def test_e1_an_open_breaker_answers_at_once_and_says_when_it_is_useful_to_come_again() -> None:
    """E1.5."""
    clock = ManualClock()
    guard = opened(clock)
    clock.advance(0.25)
    with pytest.raises(FeatureStoreDown, match=r"Redis is away\. It is asked again in 0\.8 s") as turned_away:
        guard.ask(asked)
    assert turned_away.value.retry_in_s == 0.75
    clock.advance(0.75)
    assert guard.open
    assert guard.ask(lambda: "there") == "there"
    assert not guard.open
    assert guard.openings == 1


def test_e1_while_one_probes_the_others_are_turned_away() -> None:
    """E1.5."""
    clock = ManualClock()
    guard = opened(clock)
    clock.advance(1.0)
    probing, go_on = threading.Event(), threading.Event()

    def slow() -> str:
        probing.set()
        assert go_on.wait(30)
        return "there"

    probe = threading.Thread(target=guard.ask, args=(slow,), daemon=True)
    probe.start()
    assert probing.wait(30)
    with pytest.raises(FeatureStoreDown):
        guard.ask(asked)
    go_on.set()
    probe.join(30)
    assert guard.ask(lambda: "there") == "there"


def test_e1_a_set_that_was_never_loaded_is_no_outage_of_the_store() -> None:
    guard = feature_store_guard(ManualClock())
    for _ in range(10):
        with pytest.raises(FeaturesUnavailable, match="never loaded"):
            guard.ask(not_loaded)
    assert not guard.open


def test_e1_one_line_tells_that_it_is_down_and_one_that_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    with caplog.at_level(logging.INFO, "streamml.worker"):
        guard = opened(clock)
        for _ in range(20):
            clock.advance(0.5)
            with pytest.raises(FeatureStoreDown):
                guard.ask(away)
        clock.advance(5.0)
        guard.ask(lambda: None)
    assert [record.getMessage() for record in caplog.records] == [
        "The feature store is asked only once in a while until it answers: Redis is away.",
        "The feature store answers again, after 15.0 s.",
    ]
