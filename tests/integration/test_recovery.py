"""How long it takes until killed workers score again, with real processes; their transactions included (promises D2, D6, L3)."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.ops.embedded.kafka import EmbeddedKafka
from tests.integration.scoring import model

_LOG: Final = logging.getLogger(__name__)
pytestmark = pytest.mark.integration

PARTITIONS = 4
PATIENCE_S = 60.0
TOPOLOGY = """
from pydantic import BaseModel
import numpy as np
import streamml as sm

class Event(BaseModel):
    id: str
    amount: float

class Score(BaseModel):
    id: str
    score: float

def to_matrix(columns):
    return {"x": np.stack([columns["amount"], columns["amount"]], axis=1).astype("f4")}

topology = sm.Topology(
    "NAME",
    source=sm.Source("NAME.in", schema=Event, start="earliest"),
    steps=[
        sm.Transform(to_matrix, inputs=("amount",), outputs={"x": "f4[2]"}),
        sm.Onnx("adder", outputs={"score": "score"}),
    ],
    sink=sm.Sink("NAME.out", schema=Score, key="id"),
    dead_letters=sm.DeadLetterQueue("NAME.dlq"),
)
"""


def bound(seconds: float) -> float:
    """What is promised on a machine that has a core to spare; on a busy one everybody waits for a turn."""
    return seconds * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


class Job:
    """A topology with topics of its own, fed all the time, watched by a read_committed reader."""

    def __init__(self, kafka: EmbeddedKafka, folder: Path, protocol: str) -> None:
        self.brokers = kafka.bootstrap_servers
        self.folder = folder
        self.name = f"job-{uuid.uuid4().hex[:8]}"
        self.processes: list[subprocess.Popen[bytes]] = []
        # Of each prediction by source partition: when its event was produced, and when it was seen.
        self.seen: dict[int, list[tuple[float, float]]] = {number: [] for number in range(PARTITIONS)}
        self._over = threading.Event()
        folder.mkdir()
        (folder / "job.py").write_text(TOPOLOGY.replace("NAME", self.name))
        settings = f'processing_guarantee = "exactly_once"\ngroup_protocol = "{protocol}"'
        (folder / "streamml.toml").write_text(f'brokers = "{self.brokers}"\n[worker]\n{settings}\n')
        model(folder)
        letters = {"max.message.bytes": "2000000"}
        plans = [NewTopicPlan(f"{self.name}.{part}", PARTITIONS, 1) for part in ("in", "out")]
        KafkaAdmin({"bootstrap.servers": self.brokers}).create(
            [*plans, NewTopicPlan(f"{self.name}.dlq", 1, 1, letters)]
        )
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._feed, self._watch)]
        for thread in self._threads:
            thread.start()

    def start(self, *arguments: str, machine: str = "one") -> subprocess.Popen[bytes]:
        """``streamml run``, as on a machine of this name: locks of identities lie in a folder of each."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "streamml", "run", "job.py", *arguments],
                cwd=self.folder,
                env={**os.environ, "STREAMML_STATE_DIR": str(self.folder / machine)},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def recovered(self, since: float) -> float:
        """Wait until all partitions have predictions of events since then; after how many seconds they had."""
        end = time.monotonic() + PATIENCE_S
        while not all(seen and seen[-1][0] >= since for seen in self.seen.values()):
            assert time.monotonic() < end, (
                f"{[one.poll() for one in self.processes]} {[seen[-1:] for seen in self.seen.values()]} since {since}; {self.said()}"
            )
            time.sleep(0.01)
        return max(next(at for produced, at in seen if produced >= since) for seen in self.seen.values()) - since

    def shared(self) -> None:
        """Wait until two workers have two partitions each: a rebalance has two rounds, and looks done after the first."""
        admin: Any = AdminClient({"bootstrap.servers": self.brokers})
        end, shares = time.monotonic() + PATIENCE_S, [0]
        while shares != [2, 2]:
            assert time.monotonic() < end, (shares, self.said())
            members = admin.describe_consumer_groups([self.name])[self.name].result().members
            shares = [len(one.assignment.topic_partitions) for one in members]
            time.sleep(0.05)
        self.recovered(time.monotonic())

    def predictions(self) -> int:
        return sum(map(len, self.seen.values()))

    def said(self) -> str:
        return (self.folder / "log").read_text()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self._over.set()
        for thread in self._threads:
            thread.join(timeout=10)

    def _feed(self) -> None:
        producer = Producer({"bootstrap.servers": self.brokers, "linger.ms": 0})
        while not self._over.wait(0.02):
            for partition in range(PARTITIONS):
                value = json.dumps({"id": f"{partition}/{time.monotonic()}", "amount": 1.0})
                producer.produce(f"{self.name}.in", value, partition=partition)
            producer.poll(0)
        producer.flush(10)

    def _watch(self) -> None:
        reader = Consumer(
            {"bootstrap.servers": self.brokers, "group.id": uuid.uuid4().hex, "isolation.level": "read_committed"}
        )
        reader.assign([TopicPartition(f"{self.name}.out", number, 0) for number in range(PARTITIONS)])
        while not self._over.is_set():
            message = reader.poll(0.1)
            if message is not None and message.error() is None:
                partition, produced = json.loads(message.value() or b"")["id"].split("/")
                self.seen[int(partition)].append((float(produced), time.monotonic()))
        reader.close()


@contextmanager
def running(job: Job) -> Iterator[Job]:
    try:
        yield job
    finally:
        job.close()


def workers_of(supervisor: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(supervisor.pid).children()
    return found


def test_d6_l3_a_killed_worker_scores_again_when_it_is_back_and_a_fenced_one_is_not_started_again(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """D6.3, L3.5."""
    with running(Job(kafka, tmp_path / "job", "classic")) as job:
        supervisor = job.start("--workers", "2")
        job.recovered(time.monotonic())
        for worker in workers_of(supervisor):
            job.shared()
            worker.kill()
            seconds = job.recovered(time.monotonic())
            _LOG.info("Killed and started again: %.1f s", seconds)
            assert seconds < bound(5.0)
        # The same identity on another machine.
        twin = job.start("--worker-id", f"{socket.gethostname()}-0", machine="two")
        assert supervisor.wait(timeout=PATIENCE_S) == 4, job.said()
        assert "was fenced" in job.said()
        # The other partitions come when the session of the supervisor's other worker has ended.
        before, end = job.predictions(), time.monotonic() + PATIENCE_S
        while job.predictions() == before:
            assert twin.poll() is None, job.said()
            assert time.monotonic() < end, job.said()
            time.sleep(0.02)


def test_d2_d6_a_worker_that_never_returns_is_replaced_by_either_protocol(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """D2.5, D6.5, L3.5."""
    with (
        running(Job(kafka, tmp_path / "classic", "classic")) as classic,
        running(Job(kafka, tmp_path / "consumer", "consumer")) as consumer,
    ):
        jobs = (classic, consumer)
        for job in jobs:
            for name in ("leaves", "stays"):
                job.start("--worker-id", name)
        for job in jobs:
            job.shared()
        killed: dict[Job, float] = {}
        for job in jobs:
            job.processes[0].kill()
            killed[job] = time.monotonic()
        for job in jobs:
            seconds = job.recovered(killed[job])
            _LOG.info("Killed for good, protocol %s: %.1f s", job.folder.name, seconds)
            assert 5.0 < seconds < bound(15.0)
