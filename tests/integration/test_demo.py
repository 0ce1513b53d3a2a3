"""The demo's incident, without a terminal, on servers that are there already."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis as client

from loadtests.rehearsal.__main__ import rehearse
from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.errors import FatalError
from streamml.ops.demo.show import Show
from streamml.ops.demo.stage import DemoOptions
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from topologies.flight_delay.arrivals_topic import ARRIVALS, DEAD_LETTERS
from topologies.flight_delay.topology import topology

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _no_topics_of_an_earlier_demo(kafka: EmbeddedKafka) -> None:
    """The demo's topics have one name each, and what another demo left there is wrong here."""
    admin = KafkaAdmin({"bootstrap.servers": kafka.bootstrap_servers})
    assert topology.feature_log is not None
    names = (
        ARRIVALS,
        DEAD_LETTERS,
        topology.destination,
        topology.dead_letters.topic,
        topology.feature_log.topic,
        *topology.source.topics,
    )
    left = admin.topics(names)
    if not left:
        return
    admin.delete_topics(list(left))
    ends = time.monotonic() + 60.0
    while admin.topics(list(left)):
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.timeout(240)
def test_an_incident_ends_with_the_predictions_of_a_run_without_one(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """Wrong features go live and back, what was scored meanwhile is replayed, published and exported; nothing wrong is left,
    nothing lost."""
    options = DemoOptions(
        events=2_000, rate=25.0, fast=False, brokers=kafka.bootstrap_servers, redis_url=_emptied(redis_server)
    )
    with Show(options, lambda text: None, page=tmp_path / "page.html") as show:
        told = rehearse(show, lambda text: None, seconds=0.5, out=tmp_path / "corrected")
    compared, referee, exported = told["compared"], told["referee"], told["exported"]
    assert told["passed"]
    assert compared["changed"] > 0
    assert compared["missing"] == compared["extra"] == 0
    assert referee["corrected"] == told["published"]["written"] == compared["changed"]
    assert (referee["lost"], referee["wrong"]) == (0, 0)
    assert exported["rows"] == exported["with_features"] == compared["rows"]
    assert exported["corrected"] == compared["changed"] <= exported["with_zeros"]
    assert "<svg" in (tmp_path / "page.html").read_text()


@pytest.mark.timeout(240)
def test_a_demo_waits_for_the_next_key_of_an_incident_until_somebody_quits(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """At the end of the stream wrong features keep the demo open until it is told to end; what it began then does not outlive it."""
    options = DemoOptions(
        events=200, rate=2000.0, fast=False, brokers=kafka.bootstrap_servers, redis_url=_emptied(redis_server)
    )
    with Show(options, lambda text: None, page=tmp_path / "page.html") as show:
        show.start()
        show.fault("features")
        until(show, lambda: show.incident.waits)
        until(show, lambda: show.sent_share == 1.0 and not show.snapshot()["lag"])
        assert not show.over
        show.end_stream()
        until(show, lambda: show.over)
        show.fault("mend")
    with pytest.raises(FatalError):
        show.incident.wait()


@pytest.mark.timeout(240)
def test_predictions_know_of_the_last_hours_and_none_is_wrong_through_kill_9_of_worker_and_app(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis
) -> None:
    """Each prediction is what the model makes of the features that its log has, and those are what a batch job says of then, or flagged:
    fresh while arrivals are followed, flagged from soon after the app is killed, fresh again when it is back."""
    options = DemoOptions(events=20_000, rate=150.0, brokers=kafka.bootstrap_servers, redis_url=_emptied(redis_server))
    seen: list[str] = []
    with Show(options, lambda text: None) as show:
        show.start()
        show.fault("kill")
        until(show, lambda: fresh_lately(show) > 0.5)
        show.fault("app")
        until(show, lambda: state(show, seen) == "running")
        show.end_stream()
        until(show, lambda: show.over)
        told = show.finish()
    referee, app = told["referee"], told["features_app"]
    assert [one for one in dict.fromkeys(seen) if one != "killed"] == ["restarting", "running"]
    assert (referee["lost"], referee["wrong"], referee["predicted"]) == (0, 0, told["departures"])
    assert [one["fault"] for one in told["faults"]] == ["kill", "app"]
    assert told["fast_features"].keys() == {"airport_recent", "carrier_recent"}
    (kill,) = app["kills"]
    assert app["starts"] == 2
    assert kill["sets"].keys() == told["fast_features"].keys()
    for outage in kill["sets"].values():
        assert outage["fresh_before"] > 0.05
        assert outage["flagged"] > 0.5
        assert 0.0 < outage["flagged_after_s"] < outage["fresh_again_after_s"]


def fresh_lately(show: Show) -> float:
    """Of the last three seconds, the share of predictions with fresh values among those that could have them; of the set with the least."""
    courses = [one["course"][-6:] for one in show.snapshot()["fast_features"].values()]
    return min(sum(share or 0.0 for share in course) / 6 for course in courses)


def state(show: Show, seen: list[str]) -> str:
    """Of the features app; ``seen`` is added to."""
    seen.append(show.snapshot()["features_app"]["state"])
    return seen[-1]


def _emptied(server: EmbeddedRedis) -> str:
    """A database of the demo, without values that an earlier one has left: they would be of its future, or not expected at all."""
    url = server.url.rsplit("/", 1)[0] + "/8"
    with client.Redis.from_url(url) as raw:
        raw.flushdb()
    return url


def until(show: Show, condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 120.0
    while not condition():
        assert time.monotonic() < ends
        show.tick()
        time.sleep(0.05)
