"""E4: a group that is paused by a storm of dead letters, or by hand, on a real broker with real worker processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from streamml.adapters.kafka.control import read_state
from streamml.adapters.kafka.source import KafkaSource
from streamml.adapters.kafka.tail import read_topic
from streamml.compose.locate import locate_topology
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.process import free_port
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.pause import pause, resume
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology
from tests.integration.test_command_line import Shell, load_features

pytestmark = pytest.mark.integration

GOOD, BAD = 200, 300
PATIENCE_S = 60


class Group(Shell):
    """A group of workers whose probes are looked at."""

    def __init__(self, folder: Path, brokers: str, redis_url: str) -> None:
        super().__init__(folder, brokers, redis_url)
        self.port = free_pair()
        self.declare("max_ratio=0.2, min_sample=100")
        self.type("topics", "create", "payments.py", "--partitions", "1")
        load_features(self)
        self.probe = KafkaSource([f"{self.name}.in"], self.name, "earliest", {"bootstrap.servers": brokers})

    def declare(self, limit: str, **source: str) -> None:
        """Change the topology's limit of dead letters and its source's arguments."""
        file = self.folder / "payments.py"
        text = re.sub(r'"\.dlq", .*\)|(?<=\.dlq", ).*(?=\),)', limit, file.read_text())
        given = "".join(f", {name}={value!r}" for name, value in source.items())
        file.write_text(text.replace('start="earliest")', f'start="earliest"{given})'))

    @property
    def declared(self) -> Topology:
        return locate_topology(str(self.folder / "payments.py")).found

    @property
    def settings(self) -> Settings:
        return Settings(brokers=self.brokers)

    @contextmanager
    def running(self, workers: int = 1) -> Iterator[subprocess.Popen[str]]:
        process = self.start(
            "run", "payments.py", "--workers", str(workers), "--metrics-port", str(self.port), "--json"
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()

    def ask(self, path: str, worker: int = 0) -> tuple[int, Any]:
        """Status and answer; status 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port + worker}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (urllib.error.URLError, ConnectionError, http.client.BadStatusLine):
            # Where nobody listens, a connection may come back to where it started, and hear its own question.
            return 0, ""

    def wait_until_says(self, path: str, status: int, word: str, workers: int = 1) -> None:
        """Until all workers answer so."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answers = [self.ask(path, worker) for worker in range(workers)]
            if all(code == status and word in text for code, text in answers):
                return
            assert time.monotonic() < deadline, f"{path} says {answers}"
            time.sleep(0.02)

    def consumed(self, workers: int) -> int:
        pages = [self.ask("/metrics", worker)[1] for worker in range(workers)]
        return sum(int(float(re.findall(r"^streamml_consumed_records_total (\S+)", one, re.M)[0])) for one in pages)

    def committed(self) -> int:
        return sum(self.probe.committed().values())

    def letters(self) -> int:
        return sum(1 for _ in read_topic({"bootstrap.servers": self.brokers}, f"{self.name}.dlq"))

    def produce_bad(self, count: int, first: int) -> None:
        """Amounts as text: nothing that a strict contract takes."""
        producer = Producer({"bootstrap.servers": self.brokers})
        for number in range(first, first + count):
            value = {"id": f"p{number}", "account": f"a{number % 10}", "amount": str(float(number))}
            producer.produce(f"{self.name}.in", json.dumps(value), str(number))
        assert producer.flush(30) == 0


def free_pair() -> int:
    """The first of two ports in a row that nobody has."""
    while True:
        port = free_port()
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 1))
            return port


@pytest.fixture
def group(kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path) -> Iterator[Group]:
    made = Group(tmp_path, kafka.bootstrap_servers, redis_server.url)
    yield made
    made.probe.close()


def until(met: Callable[[], bool]) -> None:
    """Bounded, and not by what is usual."""
    deadline = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_e4_l2_a_storm_pauses_survives_kill_9_and_ends_when_somebody_resumes(group: Group, guarantee: str) -> None:
    """E4.1, E4.4, E4.6, L2.3."""
    group.environment["STREAMML_WORKER_PROCESSING_GUARANTEE"] = guarantee
    group.produce(GOOD)
    with group.running() as worker:
        until(lambda: group.committed() >= GOOD)
        group.wait_until_says("/ready", 200, "ready")
        position = group.committed()
        group.produce_bad(BAD, GOOD)
        group.wait_until_says("/ready", 503, "records became dead letters")
        # A worker that is killed before it could say so does it again.
        until(lambda: read_state({"bootstrap.servers": group.brokers}, f"{group.name}.control").state.paused)
        group.produce(10, GOOD + BAD)
        assert group.ask("/live")[0] == 200
        assert group.committed() == position
        assert worker.poll() is None
        worker.send_signal(signal.SIGKILL)
    group.declare("max_ratio=0.2, min_sample=100", parsing="pydantic")
    with group.running() as worker:
        group.wait_until_says("/ready", 503, "records became dead letters")
        assert group.committed() == position
        assert len(group.scores()) == GOOD
        assert group.letters() == (BAD if guarantee == "at_least_once" else 0)
        told = group.type("resume", "payments.py", "--json")
        assert (told["changed"], told["paused"]) == (True, False)
        assert told["before"]["storm"]["share"] > 0.2
        until(lambda: len(group.scores()) >= GOOD + BAD + 10)
        group.wait_until_says("/ready", 200, "ready")
        worker.send_signal(signal.SIGTERM)
        out, err = worker.communicate(timeout=30)
    assert worker.returncode == 0, err
    assert json.loads(out)["paused"] is None
    assert "Paused by" in err
    assert "Resumed by" in err
    assert group.scores() == {f"p{number}": number + 0.5 for number in range(GOOD + BAD + 10)}


def test_e4_l2_all_workers_pause_by_hand_and_go_on(group: Group) -> None:
    """E4.5, L2.3."""
    # With one partition, one of them has none, and by this protocol is not told that it is a member; it is ready all the same.
    group.environment["STREAMML_WORKER_GROUP_PROTOCOL"] = "consumer"
    group.produce(GOOD)
    with group.running(2) as workers:
        group.wait_until_says("/ready", 200, "ready", workers=2)
        until(lambda: len(group.scores()) == GOOD)
        told = group.type("pause", "payments.py", "--reason", "maintenance", "--json")
        assert (told["changed"], told["topic"]) == (True, f"{group.name}.control")
        group.wait_until_says("/ready", 503, "paused: maintenance", workers=2)
        again = pause(group.declared, group.settings, "again", wait_s=0.0, waiting=pytest.fail)
        assert (again.changed, again.now.reason) == (False, "maintenance")
        until(lambda: group.committed() == GOOD)
        group.produce(100, GOOD)
        process = group.start("run", "payments.py", "--until-caught-up", "--json")
        out, err = process.communicate(timeout=60)
        assert (process.returncode, json.loads(out)["paused"]["reason"]) == (3, "maintenance"), err
        assert "`streamml resume`" in err
        assert group.consumed(2) == GOOD == group.committed() == len(group.scores())
        assert "goes on; it was paused by" in group.type("resume", "payments.py")
        until(lambda: len(group.scores()) == GOOD + 100)
        group.wait_until_says("/ready", 200, "ready", workers=2)
        assert not resume(group.declared, group.settings, wait_s=0.0, waiting=pytest.fail).changed
        workers.send_signal(signal.SIGTERM)
        _, err = workers.communicate(timeout=30)
    assert workers.returncode == 0, err
