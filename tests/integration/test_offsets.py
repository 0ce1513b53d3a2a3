"""`streamml offsets` on a real broker (promise D7)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient

import streamml as sm
from loadtests.baseline.topology import Event
from loadtests.baseline.topology import topology as baseline
from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.cli.main import exit_code_of
from streamml.errors import ConfigError, OffsetOutOfRange, TopologyError
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.offsets import plan_reset, positions, reset
from streamml.ports.source import RawRecord, TopicPartition
from streamml.settings.settings import Settings
from tests.conformance.grounds import KafkaGround, joined, until
from tests.integration.scoring import Job, payment

pytestmark = pytest.mark.integration


class World:
    """A topic of two partitions with five records each, written a second apart, and a group that may have positions."""

    def __init__(self, kafka: EmbeddedKafka) -> None:
        self.ground = KafkaGround(kafka)
        self.settings = Settings(brokers=kafka.bootstrap_servers, group=self.ground.group)
        self.topology = replace(baseline, source=sm.Source(self.ground.topic, schema=Event, start="earliest"))
        self.ground.create(self.ground.topic, 2)
        for partition in (0, 1):
            for second in range(1, 6):
                self.ground.append(RawRecord(None, b"value", [], 1_000 * second), partition)

    def commit(self, first: int, second: int, topic_id: str = "") -> None:
        places = dict(zip(self.places, (first, second), strict=True))
        KafkaOffsets(self.ground.client).commit(self.ground.group, places, {self.ground.topic: topic_id})

    @property
    def places(self) -> list[TopicPartition]:
        return [TopicPartition(self.ground.topic, number) for number in (0, 1)]

    def states(self) -> list[str]:
        return [one.state for one in positions(self.topology, self.settings).partitions]

    def move(self, to: str, *chosen: str) -> list[int | None]:
        found = positions(self.topology, self.settings)
        reset(found, self.settings, plan_reset(found, self.settings, to, chosen))
        return [one.committed for one in positions(self.topology, self.settings).partitions]


@pytest.fixture
def world(kafka: EmbeddedKafka) -> World:
    return World(kafka)


def test_d7_each_position_that_does_not_hold_has_its_name(world: World) -> None:
    """D7.2."""
    assert world.states() == ["not started", "not started"]
    world.commit(1, 5)
    assert [one.lag for one in positions(world.topology, world.settings).partitions] == [4, 0]
    world.ground.delete_before(3, 0)
    assert world.states() == ["below retention", "ok"]
    world.commit(3, 6)
    assert world.states() == ["ok", "beyond the end"]
    world.commit(3, 3, topic_id="another")
    assert world.states() == ["of an earlier topic"] * 2


def test_d7_a_reset_goes_where_it_is_told_and_heals_every_state(world: World) -> None:
    """D7.4."""
    assert world.move("latest") == [5, 5]
    assert world.move("2", "0") == [2, 5]
    assert world.move("earliest", f"{world.ground.topic}/1") == [2, 0]
    assert world.move("1970-01-01T00:00:04Z") == [3, 3]
    assert world.move("1970-01-01T00:00:04+00:00", "1") == [3, 3]
    assert world.move("2030-01-01") == [5, 5]
    world.commit(9, 1, topic_id="another")
    assert world.move("earliest") == [0, 0]
    assert world.states() == ["ok", "ok"]
    ids = {name: one.id for name, one in KafkaAdmin(world.ground.client).topics([world.ground.topic]).items()}
    kept = KafkaOffsets(world.ground.client).committed(world.ground.group, world.places)
    assert {one.topic_id for one in kept.values()} == set(ids.values())


def test_d7_a_plan_says_what_it_skips_and_what_cannot_be_is_told_at_once(world: World) -> None:
    """D7.4."""
    world.commit(1, 5)
    found = positions(world.topology, world.settings)
    assert [move.effect for move in plan_reset(found, world.settings, "4", ["0"])] == ["skips 3 records"]
    assert [move.effect for move in plan_reset(found, world.settings, "earliest", ["1"])] == [
        "scores up to 5 records again"
    ]
    with pytest.raises(ConfigError) as told:
        plan_reset(found, world.settings, "7", ["0", "1", "8"])
    assert len(told.value.problems) == 3
    with pytest.raises(ConfigError, match="yesterday"):
        plan_reset(found, world.settings, "yesterday")
    with pytest.raises(TopologyError, match="baseline"):
        positions(baseline, world.settings)


def test_d7_a_group_at_work_is_left_alone(world: World) -> None:
    """D7.4."""
    with joined(world.ground.source()) as member:
        until(lambda: len(member.owned) == 2, member)
        found = positions(world.topology, world.settings)
        with pytest.raises(ConfigError, match="has members"):
            plan_reset(found, world.settings, "latest")
        # The broker refuses it as well, should somebody join in between.
        with pytest.raises(ConfigError, match="members again"):
            world.commit(5, 5)
    assert [one.committed for one in positions(world.topology, world.settings).partitions] == [0, 0]


def test_d7_a_worker_below_retention_says_which_command_helps_and_it_does(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """D7.2, D7.4."""
    job = BriefSession(kafka.bootstrap_servers, redis_server.url, tmp_path)
    job.create()
    job.features({"a1": 0.5})
    job.produce([payment(number) for number in range(10)])
    (tmp_path / "job.py").write_text(
        "import streamml as sm\nfrom dataclasses import replace\nfrom loadtests.baseline.topology import Event, topology\n"
        f'topology = replace(topology, name="{job.name}", source=sm.Source("{job.name}.in", schema=Event, start="earliest"))\n'
    )

    def offsets(command: str, *arguments: str) -> str:
        code = exit_code_of(["offsets", command, f"{tmp_path}/job.py", "--brokers", job.brokers, *arguments])
        assert code == 0
        return capsys.readouterr().out

    offsets("reset", "--to", "2", "--yes")
    admin = AdminClient({"bootstrap.servers": job.brokers})
    for deleted in admin.delete_records([ClientPartition(f"{job.name}.in", 0, 3)]).values():
        deleted.result()
    with pytest.raises(OffsetOutOfRange, match=rf"offsets reset TOPOLOGY --partition {job.name}.in/0 --to earliest"):
        job.run()
    until(lambda: not KafkaAdmin({"bootstrap.servers": job.brokers}).group_members(job.name))
    shown = json.loads(offsets("show", "--json"))
    below, other = shown["partitions"]
    assert (below["committed"], below["state"], other["state"]) == (2, "below retention", "ok")
    # What came of the other partition before the client told of this one is scored.
    assert other["committed"] in (2, 5)
    assert "goes on with what is there" in offsets("reset", "--to", "earliest", "--partition", "0", "--yes")
    assert job.run()["predictions"] == 2 + 5 - other["committed"]


class BriefSession(Job):
    """A worker that stops is no member any more after a second and a half: a static one does not leave."""

    @property
    def settings(self) -> Settings:
        return super().settings.model_copy(
            update={"kafka_consumer": {"session.timeout.ms": 1500, "heartbeat.interval.ms": 300}}
        )
