"""A stretch of a topic scored again, on real Kafka and Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.replay.standing import standing
from streamml.ports.source import TopicPartition
from tests.integration.replaying import Replaying
from tests.integration.scoring import Job, payment

pytestmark = pytest.mark.integration


@pytest.fixture
def job(kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path) -> Job:
    made = Job(kafka.bootstrap_servers, redis_server.url, tmp_path)
    made.create()
    made.features({"a1": 10.0})
    return made


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_stretch_is_scored_again_and_the_live_group_stays_where_it_is(job: Job, guarantee: str) -> None:
    job.produce([payment(number) for number in range(100)])
    job.run()
    offsets = KafkaOffsets(job.settings.client())
    places = offsets.partitions([f"{job.name}.in"])
    before = offsets.committed(job.name, places)
    job.features({"a1": 20.0})
    replaying = Replaying(job, guarantee)
    done = replaying.run(10, 30)
    assert (done.state, done.into) == ("done", f"{job.name}.out.replay.{done.number}")
    assert done.counts == {"consumed": 40, "predictions": 40, "dead_letters": 0, "filtered": 0}
    written = replaying.written(done)
    assert {id for id, _ in written} == {f"p{number}" for number in range(20, 60)}
    assert {mark.revision for _, mark in written} == {done.number}
    live = {mark.id for _, mark in job.predictions().values()}
    assert len(live & {mark.id for _, mark in written}) == 40
    assert offsets.committed(job.name, places) == before
    assert TopicPartition(f"{job.name}.in", 0) in before
    stands = standing(job.topology, job.settings, done.number)
    assert (stands.state, stands.done, stands.total) == ("done", 40, 40)
