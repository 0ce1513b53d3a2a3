"""Workers and brokers that are killed: nothing lost, duplicates bounded, nothing wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamml.adapters.kafka.source import KafkaSource
from streamml.engine.identity import HEADER, read_header
from streamml.errors import TransientError
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.replay.run import Manner
from streamml.ops.replay.standing import standing
from tests.integration.replaying import Replaying
from tests.integration.scoring import Job as Payments
from tests.integration.scoring import payment
from tests.integration.test_worker import Job, event

pytestmark = pytest.mark.integration

both = pytest.mark.parametrize("exactly_once", [False, True], ids=["at least once", "exactly once"])
EVENTS = 12_000
KILLS = 3


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker that tests may kill."""
    broker = EmbeddedKafka(tmp_path_factory.mktemp("own-kafka"))
    broker.start()
    yield broker
    broker.stop()


def start_worker(job: Job) -> subprocess.Popen[bytes]:
    guarantee = "exactly_once" if job.exactly_once else "at_least_once"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.worker_process", job.servers, job.name, guarantee]
    )


def committed(probe: KafkaSource) -> int:
    return sum(probe.committed().values())


def wait_for(probe: KafkaSource, total: int) -> None:
    """Until the group has committed ``total`` records."""
    deadline = time.monotonic() + 60
    while committed(probe) < total:
        assert time.monotonic() < deadline, f"only {committed(probe)} of {total} records were committed in a minute"
        time.sleep(0.02)


def check(job: Job) -> None:
    """Nothing lost, nothing wrong, first occurrences in source order; once each where that was promised."""
    seen: Counter[str] = Counter()
    first: dict[str, list[int]] = {}
    for record in job.read("out"):
        value = json.loads(record.value())
        assert value["score"] == 2 * int(value["id"][1:]) + 1
        if not seen[value["id"]]:
            _, partition, offset = read_header(dict(record.headers())[HEADER]).id.rsplit("/", 2)
            first.setdefault(f"{partition} to {record.partition()}", []).append(int(offset))
        seen[value["id"]] += 1
    assert set(seen) == {f"e{number}" for number in range(EVENTS)}
    assert all(offsets == sorted(offsets) for offsets in first.values())
    assert not job.exactly_once or set(seen.values()) == {1}


@both
def test_d1_d2_d4_kill_9_of_the_worker_loses_nothing(kafka: EmbeddedKafka, exactly_once: bool) -> None:
    """D1.2, D2.2, D4.1."""
    job = Job(kafka.bootstrap_servers, exactly_once=exactly_once)
    job.create()
    probe = KafkaSource([f"{job.name}.in"], job.name, "earliest", {"bootstrap.servers": job.servers})
    share = EVENTS // (KILLS + 1)
    worker = start_worker(job)
    try:
        for part in range(KILLS + 1):
            job.produce([event(n, n + 0.5) for n in range(part * share, (part + 1) * share)])
            if part < KILLS:
                wait_for(probe, part * share + 1)
                worker.kill()
                worker.wait()
                worker = start_worker(job)
        wait_for(probe, EVENTS)
        worker.terminate()
        assert worker.wait(timeout=20) == 0
    finally:
        worker.kill()
        worker.wait()
        probe.close()
    check(job)


@both
def test_d1_d2_d4_broker_kill_9_and_restart_loses_nothing(own_kafka: EmbeddedKafka, exactly_once: bool) -> None:
    """D1.2, D2.2, D4.1."""
    job = Job(own_kafka.bootstrap_servers, exactly_once=exactly_once)
    job.create()
    half = EVENTS // 2
    job.produce([event(n, n + 0.5) for n in range(half)])
    worker = job.worker()
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    probe = KafkaSource([f"{job.name}.in"], job.name, "earliest", {"bootstrap.servers": job.servers})
    try:
        wait_for(probe, 1)
        own_kafka.kill()
        own_kafka.start()
        job.produce([event(n, n + 0.5) for n in range(half, EVENTS)])
        wait_for(probe, EVENTS)
    finally:
        worker.request_stop()
        thread.join(timeout=30)
        probe.close()
    assert not thread.is_alive()
    check(job)


def test_d3_a_replay_without_a_broker_stops_by_itself_and_goes_on_when_resumed(
    own_kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D3.11."""
    job = Payments(own_kafka.bootstrap_servers, redis_server.url, tmp_path)
    job.create()
    job.features({"a1": 1.0})
    job.produce([payment(number) for number in range(200)])
    replaying = Replaying(job)
    replay = replaying.begin(0, 100)
    failed: list[Exception] = []

    def run() -> None:
        try:
            replaying.finish(replay, manner=Manner(rate=50, patience_s=1.0))
        except TransientError as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not standing(job.topology, job.settings, replay.number).done:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for patience in ("probe._TIMEOUT_S", "append._WRITE_S", "holder._CLOSE_S"):
        monkeypatch.setattr(f"streamml.adapters.kafka.{patience}", 1.0)
    own_kafka.kill()
    thread.join(90)
    assert not thread.is_alive()
    monkeypatch.undo()
    own_kafka.start()
    assert f"`streamml replay resume {job.name} {replay.number}` goes on" in str(failed[0])
    assert Replaying(job).resume(replay.number).state == "done"
    assert set(replaying.ids(replay)) == {f"p{number}" for number in range(200)}
