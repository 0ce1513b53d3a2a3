"""The features app as the demo keeps and sees it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from streamml.engine.identity import Provenance
from streamml.ops.demo.features_app import FeaturesApp
from streamml.ops.demo.freshness import Freshness


@pytest.fixture
def freshness() -> Freshness:
    return Freshness({"recent": {"a"}})


@pytest.fixture
def app(freshness: Freshness) -> Iterator[FeaturesApp]:
    made = FeaturesApp([sys.executable, "-c", "import signal; signal.pause()"], {}, freshness)
    made.start()
    until_started(made, 1)
    yield made
    made.stop()


def until_started(app: FeaturesApp, times: int) -> None:
    ends = time.monotonic() + 30
    while app.told(0.0, time.time())["starts"] < times:
        assert time.monotonic() < ends
        time.sleep(0.01)


def predicted(freshness: Freshness, since: float, until: float, flags: str) -> None:
    made = Provenance("topic/0/1", "model@1", 0, flags)
    steps = range(round((until - since) * 20))
    freshness.add([{"flight_id": "a", "made": made, "came": since + number / 20} for number in steps])


def test_it_is_restarting_until_predictions_use_fresh_values_again(freshness: Freshness, app: FeaturesApp) -> None:
    assert app.state(time.time()) == "running"
    predicted(freshness, time.time() - 3.0, time.time(), "recent@live-1")
    app.kill()
    (killed_at,) = app.kills
    assert app.state(killed_at) == "killed"
    until_started(app, 2)
    predicted(freshness, killed_at, killed_at + 2.0, "recent@live-1:stale")
    assert app.state(killed_at + 2.0) == "restarting"
    predicted(freshness, killed_at + 2.0, killed_at + 4.0, "recent@live-1")
    assert app.state(killed_at + 4.0) == "running"
    told = app.told(killed_at - 5.0, killed_at + 4.0)
    assert (told["starts"], told["kills"][0]["at_s"]) == (2, 5.0)
    assert told["kills"][0]["sets"]["recent"]["fresh_again_after_s"] == pytest.approx(2.3, abs=0.2)


def test_an_app_whose_values_nobody_uses_runs_a_while_after_it_is_there(app: FeaturesApp) -> None:
    app.kill()
    until_started(app, 2)
    assert app.state(time.time() + 6.0) == "running"
