"""The way back after an incident: a real run is scored again, compared and published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamml.engine.identity import read_header
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.replay.compare import CompareOptions, compare
from streamml.ops.replay.publish import Publisher, PublishOptions
from tests.integration.replaying import Replaying
from tests.integration.scoring import Job, payment

pytestmark = pytest.mark.integration


def test_d3_by_highest_revision_the_live_topic_is_as_without_the_incident(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """D3.6, D3.8, D3.9: features are wrong for a while."""
    job = Job(kafka.bootstrap_servers, redis_server.url, tmp_path)
    job.create()
    job.features({"a1": 10.0})
    job.produce([payment(number) for number in range(20)])
    job.run()
    job.features({"a1": -500.0})
    job.produce([payment(number) for number in range(20, 60)])
    job.run()
    job.features({"a1": 10.0})
    job.produce([payment(number) for number in range(60, 80)])
    job.run()
    replaying = Replaying(job, "exactly_once")
    run = replaying.run(5, 35)
    found = compare(job.topology, replaying.settings, run, CompareOptions(thresholds={"score": 0.0}))
    assert (found.counts.same, found.counts.changed, found.counts.rows) == (20, 40, 60)
    assert [(one.up, one.down) for one in found.flips] == [(40, 0)]
    options = PublishOptions(changed_only=True)
    for written in (40, 0):
        with Publisher.open(job.topology, replaying.settings, run, options) as publisher:
            assert publisher.write().written == written
    kept: dict[str, tuple[int, float]] = {}
    for one in job.read("out"):
        value = json.loads(one.record.value or b"")
        mark = read_header(dict(one.record.headers)["streamml"] or b"")
        kept[value["id"]] = max(kept.get(value["id"], (-1, 0.0)), (mark.revision, value["score"]))
    assert {id: score for id, (_, score) in kept.items()} == {f"p{number}": 11.0 + number for number in range(80)}
    assert sum(revision == run.number for revision, _ in kept.values()) == 40
