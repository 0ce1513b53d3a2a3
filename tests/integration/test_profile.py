"""`streamml profile` on a real broker and a real Redis: it leaves nothing behind and touches nothing of the topology's."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from tests.integration.test_command_line import Shell, load_features

pytestmark = pytest.mark.integration


@pytest.fixture
def shell(kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path) -> Shell:
    return Shell(tmp_path, kafka.bootstrap_servers, redis_server.url)


def test_a_profile_measures_every_step_and_leaves_nothing_behind(shell: Shell) -> None:
    shell.type("topics", "create", "payments.py", "--partitions", "2")
    load_features(shell)
    shell.produce(600)
    assert "600 records, and a profile needs 1,000" in shell.refused("profile", "payments.py")
    shell.produce(900, 600)

    found = shell.type("profile", "payments.py", "--events", "1000", "--rounds", "1", "--json")

    assert (found["events"], found["rounds"]) == (1000, 1)
    assert found["events_per_s"] > 0
    steps = {step["free"]: step["events_per_s"] for step in found["steps"]}
    assert {"read", "decode", "encode", "features from memory", "produce"} < steps.keys()
    assert any(name.startswith("lookup(") for name in steps)
    assert all(rate > 0 for rate in steps.values())
    assert shell.scores() == {}
    admin = AdminClient({"bootstrap.servers": shell.brokers})
    assert not [name for name in admin.list_topics(timeout=10).topics if name.startswith(f"{shell.name}.out.")]
    groups = admin.list_consumer_groups(request_timeout=10).result().valid
    assert not [one.group_id for one in groups if shell.name in one.group_id]
