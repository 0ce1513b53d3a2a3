"""The stack for development: survives kills, ends only what it started, says what is wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as client
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from streamml.errors import ConfigError
from streamml.ops.cores import cores
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.process import free_port, started_at
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.embedded.stack import Part, Stack

pytestmark = pytest.mark.integration


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path / "dev")
    yield made
    made.down()


def test_up_survives_a_hard_kill_with_its_data_and_down_ends_it(stack: Stack) -> None:
    first = stack.up()
    created = AdminClient({"bootstrap.servers": first.brokers})
    created.create_topics([NewTopic("kept", 1, 1)])["kept"].result(10)
    assert _retention_ms(created, "kept") == "-1"
    with client.Redis(port=first.redis.port) as store:
        store.set("kept", "yes")
    for part in (first.kafka, first.redis):
        assert part.pid is not None
        os.kill(part.pid, signal.SIGKILL)
        os.waitpid(part.pid, 0)
    status = stack.status()
    assert status is not None
    assert not status.kafka.running
    assert not status.redis.running

    second = stack.up()
    assert (second.brokers, second.redis_url) == (first.brokers, first.redis_url)
    assert "kept" in AdminClient({"bootstrap.servers": second.brokers}).list_topics(timeout=10).topics
    assert stack.up() == second
    assert sorted(stack.down()) == ["kafka", "redis"]
    assert stack.down() == []


def _retention_ms(admin: AdminClient, topic: str) -> str:
    """Asked until the broker, which has only just made the topic, knows it."""
    place = ConfigResource(ResourceType.TOPIC, topic)
    deadline = time.monotonic() + 30
    while True:
        try:
            return str(admin.describe_configs([place])[place].result(10)["retention.ms"].value)
        except KafkaException:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_broker_has_no_more_threads_for_requests_than_its_cores_can_run(kafka: EmbeddedKafka) -> None:
    broker = ConfigResource(ResourceType.BROKER, "1")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    found = admin.describe_configs([broker])[broker].result(10)
    assert 1 <= int(found["num.network.threads"].value) <= cores()
    assert 2 <= int(found["num.io.threads"].value) <= max(2, cores())


def test_the_controller_gets_another_port_where_clients_get_its_own(stack: Stack) -> None:
    first = stack.up()
    stack.down()
    moved = stack.up(kafka_port=first.controller_port)
    assert moved.kafka.port == first.controller_port != moved.controller_port


def test_kafka_that_cannot_be_prepared_says_why(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(ConfigError, match="two listeners on the same port"):
        EmbeddedKafka(tmp_path / "kafka", port=port, controller_port=port).start()


def test_no_free_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [free_port(), free_port()]
    monkeypatch.setattr("random.sample", lambda population, k: ports)
    monkeypatch.setattr("streamml.ops.embedded.process._given", {ports[0]})
    assert free_port() == ports[1]


def test_down_leaves_a_process_alone_that_only_has_the_number_of_ours(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert Part(1, other.pid, started_at(other.pid)).running
        assert not Part(1, other.pid, "another time").running
    finally:
        other.kill()
        other.wait()
        assert other.stdin is not None
        other.stdin.close()


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} on 127.0.0.1 is taken"):
            Stack(tmp_path / "dev").up(redis_port=port)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("a file")
    with pytest.raises(ConfigError, match="lies in a file"):
        Stack(tmp_path / "in-the-way" / "dev").up()


def test_a_state_file_that_is_garbage_is_told(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(ConfigError, match="no state of this version"):
        Stack(tmp_path).status()


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os, sys, signal; from pathlib import Path; from streamml.ops.embedded.redis import EmbeddedRedis;"
        f"r = EmbeddedRedis(Path({str(tmp_path)!r})); r.start(); print(r.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    for _ in range(200):
        if started_at(pid) is None:
            return
        signal.sigtimedwait([], 0.05)
    pytest.fail(f"Redis {pid} outlived its parent")


def test_redis_says_what_its_log_says_where_it_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("a file where Redis wants a folder")
    (tmp_path / "appendonly.aof").write_text("no commands")
    with pytest.raises(ConfigError, match="Redis did not start"):
        EmbeddedRedis(tmp_path).start()


def test_a_full_disk_is_told_from_the_brokers_log(tmp_path: Path) -> None:
    (tmp_path / "kafka.log").write_text("ERROR java.io.IOException: No space left on device\n")
    assert "is full; make room" in EmbeddedKafka(tmp_path)._explained()
