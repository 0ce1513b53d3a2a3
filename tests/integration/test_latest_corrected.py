"""What is done behind a worker's back, and what of it reaches the latest predictions in Redis."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import streamml as sm
from streamml.compose.parts import gather
from streamml.errors import ConfigError, SinkUnavailable
from streamml.latest import LatestPredictions
from streamml.ops import redrive
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.export.export import Request, export
from streamml.ops.replay.compare import CompareOptions, compare
from streamml.ops.replay.publish import Publication, Publisher, PublishOptions
from streamml.ops.replay.replay import Replay
from streamml.ops.replay.span import Asked
from streamml.ops.run import StopSignal
from streamml.ops.topics import create_topics
from streamml.settings.settings import RedisSettings
from tests.integration.replaying import of
from tests.integration.scoring import Job, payment

pytestmark = pytest.mark.integration
Kept = dict[str, tuple[float, int]]
"""Score and revision by key."""


@pytest.fixture(params=["beside", "instead"])
def job(kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path, request: pytest.FixtureRequest) -> Job:
    """Ten payments; one is a dead letter, as no feature of its account is known."""
    instead = request.param == "instead"
    policies = {"if_missing": "dead_letter"}
    made = Job(kafka.bootstrap_servers, redis_server.url, tmp_path, policies=policies, redis_only=instead)
    made.latest = None if instead else sm.RedisSink(made.name, ttl="1h")
    create_topics(made.topology, made.settings, 2, 1)
    made.features({"a1": 10.0})
    made.produce([payment(number, "a2" if number == 2 else "a1") for number in range(10)])
    assert made.run()["dead_letters"] == 1
    return made


def kept(job: Job) -> Kept:
    with LatestPredictions(job.name, url=job.redis_url) as reader:
        found = {f"p{number}": reader.get(f"p{number}") for number in range(10)}
    return {key: (json.loads(one.value or b"")["score"], one.revision) for key, one in found.items() if one is not None}


def published(job: Job, run: Replay, **options: bool) -> Publication:
    with Publisher.open(job.topology, job.settings, run, PublishOptions(**options)) as publisher:  # type: ignore[arg-type]
        return publisher.write()


def test_d3_what_is_redriven_and_what_is_published_reach_redis_and_a_replay_does_not(job: Job) -> None:
    """D3.12, D3.13."""
    live: Kept = {f"p{number}": (11.0 + number, 0) for number in range(10) if number != 2}
    assert kept(job) == live
    job.features({"a1": 10.0, "a2": 20.0})
    places = redrive.find_places(job.topology, job.settings, redrive.Chosen())
    with gather(job.topology, job.located.repository, job.settings) as parts:
        away = job.settings.model_copy(update={"redis": RedisSettings(url="redis://127.0.0.1:1")})
        with pytest.raises(SinkUnavailable, match="cannot be reached"):
            redrive.redrive(job.topology, parts, away, places, StopSignal())
        done = redrive.redrive(job.topology, parts, job.settings, places, StopSignal())
    live["p2"] = (23.0, 0)
    assert (done, kept(job)) == (redrive.Redriven(1, 0), live)

    job.features({"a1": 100.0, "a2": 20.0})
    run = of(job).run("0", "5")
    assert run.counts["predictions"] == 10
    assert kept(job) == live

    job.produce([payment(0, amount=5.0)])
    job.run()
    live["p0"] = (105.0, 0)
    assert published(job, run).written == 10
    # What came after the replay's range is newer than its correction.
    corrected = {key: (score + 90.0, 1) for key, (score, _) in live.items()}
    assert kept(job) == {**corrected, "p0": (105.0, 0), "p2": (23.0, 1)}


@pytest.mark.parametrize("job", ["instead"], indirect=True)
def test_what_needs_a_topic_of_predictions_says_so(job: Job, tmp_path: Path) -> None:
    run = of(job).begin("0", "5")
    with pytest.raises(ConfigError, match="but another run"):
        compare(job.topology, job.settings, run, CompareOptions())
    with pytest.raises(ConfigError, match="leave --changed-only out") as wrong:
        published(job, run, changed_only=True, only_latest_per_key=True, unfinished=True)
    assert len(wrong.value.problems) == 2
    exported = export(job.topology, job.settings, Request(Asked("0", "5")), tmp_path / "out", lambda *told: None)
    assert (exported.rows, exported.predictions) == (10, 0)
    assert "Predictions are in Redis alone" in " ".join(exported.notes)
