"""The least rights that are printed; whether they are enough, and none too many, is shown on real servers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamml as sm
from streamml.ops.acls import Rights, least_rights
from streamml.settings.settings import RedisSettings, Settings
from tests.integration.scoring import Job

JOB = Job("b:1", "redis://r:1/0", Path(), name="pay")


def rights(settings: Settings | None = None, user: str | None = None) -> dict[str, Rights]:
    return {one.purpose: one for one in least_rights(JOB.topology, settings or Settings(), user)}


def test_a_worker_reads_its_input_writes_its_output_and_is_in_its_group() -> None:
    worker = rights(user="scorer")["worker"]
    assert [(one.operation, one.resource, one.name) for one in worker.kafka] == [
        ("READ", "topic", "pay.in"),
        ("DESCRIBE", "topic", "pay.in"),
        ("WRITE", "topic", "pay.out"),
        ("DESCRIBE", "topic", "pay.out"),
        ("WRITE", "topic", "pay.dlq"),
        ("DESCRIBE", "topic", "pay.dlq"),
        ("READ", "group", "pay"),
    ]
    assert {one.principal for one in worker.kafka} == {"User:scorer"}
    assert worker.redis == "ACL SETUSER scorer reset on >PASSWORD ~streamml:{pay}:* ~streamml:pay:* +mget +ping"


def test_a_near_cache_needs_to_be_told_of_changes() -> None:
    (lookup, *steps) = JOB.topology.steps
    assert isinstance(lookup, sm.FeatureLookup)
    near = sm.FeatureLookup(*(replace(one, near_cache=sm.NearCache()) for one in lookup.sets))
    worker, *_ = least_rights(replace(JOB.topology, steps=(near, *steps)), Settings(), "scorer")
    assert str(worker.redis).endswith("~streamml:pay:* +mget +ping +client|caching +client|tracking")


def test_only_the_worker_is_needed_and_only_topics_create_makes_anything_but_what_is_a_replays_own() -> None:
    found = rights()
    assert [one.purpose for one in found.values() if one.needed] == ["worker"]
    assert [name for name, one in found.items() if any(right.operation == "CREATE" for right in one.kafka)] == [
        "replay",
        "topics create",
    ]
    made = {one.name for one in found["replay"].kafka if one.operation in ("CREATE", "WRITE")}
    assert made == {"pay.out.replay.", "pay.replays"}
    assert not {right.operation for one in found.values() for right in one.kafka} & {"ALL", "ALTER", "DELETE"}


def test_a_feature_log_is_written_by_the_worker_and_read_by_others() -> None:
    found = {
        one.purpose: one.kafka for one in least_rights(replace(JOB, feature_log=True).topology, Settings(), "scorer")
    }
    assert [one.operation for one in found["worker"] if one.name == "pay.features"] == ["WRITE", "DESCRIBE"]
    assert [one.operation for one in found["feature log"]] == ["READ", "DESCRIBE"]
    assert "CREATE" in {one.operation for one in found["topics create"] if one.name == "pay.features"}


def test_redis_alone_takes_the_predictions_and_no_topic_of_them_is_named() -> None:
    alone = replace(JOB, redis_only=True).topology
    found = {one.purpose: one for one in least_rights(alone, Settings(), "scorer")}
    assert not [right for one in found.values() for right in one.kafka if right.name.startswith("pay.out")]
    assert "pay.replay." in {right.name for right in found["replay"].kafka}
    redis = "ACL SETUSER scorer reset on >PASSWORD ~streamml:{pay}:* ~streamml:pay:* ~streamml.latest:pay:* +mget +ping +evalsha +script|load +set"
    assert found["worker"].redis == redis


def test_settings_name_user_group_and_database() -> None:
    settings = Settings(
        group="g", kafka={"sasl.username": "sasl-user"}, redis=RedisSettings(url="redis://r:1/3", options={})
    )
    worker = rights(settings)["worker"]
    assert worker.kafka[-1].name == "g"
    assert worker.kafka[-1].principal == "User:sasl-user"
    assert worker.redis is not None
    assert worker.redis.endswith("+mget +ping +select")


def test_a_cluster_needs_other_rights_and_several_hosts_are_one() -> None:
    several = Settings(redis=RedisSettings(url="redis://r:1,s:2"))
    told = rights(several, "scorer")["worker"].redis
    assert told == (
        "ACL SETUSER scorer reset on >PASSWORD ~streamml:{pay}:* ~streamml:pay:* +get +ping +asking +cluster|slots"
    )
    asked = {one.purpose: one for one in least_rights(JOB.topology, Settings(), "scorer", cluster=True)}
    assert asked["worker"].redis == told


def test_readers_of_latest_predictions_have_a_user_of_their_own() -> None:
    kept = replace(JOB, latest=sm.RedisSink("arrivals"))
    found = {one.purpose: one.redis for one in least_rights(kept.topology, Settings(), "scorer")}
    assert found["latest reader"] == "ACL SETUSER scorer-reader reset on >PASSWORD ~streamml.latest:arrivals:* +mget"


def test_a_topology_without_features_needs_no_redis() -> None:
    bare = replace(JOB)
    topology = bare.topology
    object.__setattr__(topology, "steps", topology.steps[1:])
    found = least_rights(topology, Settings(redis=RedisSettings(url="nonsense")))
    assert [one.redis for one in found if one.redis is not None] == []
