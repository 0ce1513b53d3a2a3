"""The real stack of one run: everything that faults act on, and everything that judges what they do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtests.baseline.load import ACCOUNTS, load_features
from loadtests.faults.crew import Crew, Slot
from loadtests.faults.fast import Writes
from loadtests.faults.feeder import Feeder
from loadtests.faults.judge import Judge
from loadtests.faults.proxy import Proxy
from loadtests.faults.stream import MODELS, Stream
from loadtests.faults.topology import CLOCK_FILE, HANG_FILE, PREDICTIONS, recent, topology
from loadtests.redis_cluster import Node, RedisCluster
from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.source import KafkaSource
from streamml.adapters.redis.keys import entity_keys, entity_prefix
from streamml.adapters.redis.layout import Layout
from streamml.errors import FatalError
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.topics import create_topics
from streamml.settings.settings import RedisSettings, Settings

PARTITIONS = 4
STUCK_AFTER_S = 45.0
"""A worker that stands still for so long ends with its stacks, and is started again."""
CLOCK_SHIM = Path(__file__).parent / "clock"
_DISK_MB = 600
_START_S = 120.0
_LEAVE_S = 30.0
# A busy machine must not look like a node that is gone.
_NODE_TIMEOUT_MS = 3000
# Without it a client hears of new partitions after five minutes.
_REFRESH = {"topic.metadata.refresh.interval.ms": 2000}


@dataclass(frozen=True)
class Shape:
    """How a run is set up.

    Args:
        workers: processes in the group.
        rate: events per second.
        seed: of everything that is left to chance.
        guarantee: the setting ``[worker] processing_guarantee``.
        session_s: session timeout of the workers.
        who: ``worker``, or ``loop``: what people write by hand, under the same faults.
        cluster: whether Redis is a cluster of three masters, each with a replica.
        small_disk: whether the broker's folder is a file system of its own that can be filled.
    """

    workers: int
    rate: float
    seed: int
    guarantee: str = "at_least_once"
    session_s: int = 6
    small_disk: bool = False
    who: str = "worker"
    cluster: bool = False


class World:
    """Use it in a ``with`` statement; its servers and workers end with it."""

    def __init__(self, shape: Shape, stream: Stream, progress: Callable[[str], None]) -> None:
        self.shape = shape
        self.topology = topology
        self.broker_lock, self.redis_lock = threading.Lock(), threading.Lock()
        self.over = threading.Event()
        self.skipped: dict[str, str] = {}
        self.disk: Path | None = None
        self._stream = stream
        self._progress = progress
        self._stack = ExitStack()

    def __enter__(self) -> World:
        with ExitStack() as stack:
            self._set_up(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self._stack.close()

    def _set_up(self, stack: ExitStack) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamml-chaos-")))
        self._progress("Starting Kafka and Redis")
        if self.shape.small_disk:
            self._mount(stack)
        self.kafka = EmbeddedKafka((self.disk or self.folder) / "kafka")
        stack.callback(self.kafka.stop)
        self.kafka.start()
        self.client: dict[str, Any] = {"bootstrap.servers": self.kafka.bootstrap_servers, **_REFRESH}
        url = self._start_cluster(stack) if self.shape.cluster else self._start_redis(stack)
        self.settings = Settings(
            brokers=self.kafka.bootstrap_servers, redis=RedisSettings(url=url), kafka=dict(_REFRESH)
        )
        load_features(self.redis_url)
        self._start_writer(stack)
        create_topics(topology, self.settings, PARTITIONS, 1)
        self._judge(stack)
        self.hang_file, self.clock_file = self.folder / "hang", self.folder / "clock"
        self.crew = Crew(self._command(), self._environment(), self.folder)
        stack.callback(self.crew.end, 0.0)
        shape = self.shape
        self.feeder = Feeder(self.client, topology.source.topics[0], self._stream, shape.rate, shape.seed)
        self.judge.sent_at = self.feeder.sent_at
        self._start_workers()

    def _start_redis(self, stack: ExitStack) -> str:
        """One server, and what can hold its replies back; returns where workers find it."""
        self.redis = EmbeddedRedis(self.folder / "redis")
        stack.callback(self.redis.stop)
        self.redis.start()
        self.redis_url = self.redis.url
        self.proxy = Proxy(self.redis.port)
        self.proxy.start()
        stack.callback(self.proxy.stop)
        return f"redis://127.0.0.1:{self.proxy.port}/0"

    def _start_cluster(self, stack: ExitStack) -> str:
        self.cluster = RedisCluster(self.folder / "redis")
        stack.callback(self.cluster.close)
        self.cluster.start()
        self.cluster.quick(_NODE_TIMEOUT_MS)
        self.redis_url = self.cluster.url
        return self.redis_url

    def _start_writer(self, stack: ExitStack) -> None:
        """Begin to write fast features, and wait until all that are ever written are there, on replicas too."""
        self._progress("Writing fast features")
        notes = self.folder / "writes"
        self.writes = Writes(notes)
        command = [sys.executable, "-m", "loadtests.faults.writer", self.settings.redis.url, str(notes)]
        self.writer = Slot(command, {}, self.folder / "writer.log")
        stack.callback(self.writer.join, 0.0)
        stack.callback(self.writer.dismiss)
        deadline = time.monotonic() + _START_S
        while not self.writes.complete:
            if time.monotonic() > deadline:
                raise FatalError(f"The writer has not written all fast features; {self.logs()}")
            self.over.wait(0.2)
        if self.shape.cluster:
            self.cluster.copied()

    def accounts_of(self, master: Node) -> npt.NDArray[np.bool_]:
        """Which accounts' fast features this node of the cluster has."""
        prefix = entity_prefix(recent.name, Layout.of(recent.schema).live_version)
        owners = self.cluster.owners(entity_keys(prefix, [(b"%d" % account,) for account in range(ACCOUNTS)]))
        return np.array([owner is master for owner in owners])

    def _mount(self, stack: ExitStack) -> None:
        """A small file system for the broker, where this machine lets us have one."""
        disk = self.folder / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "chaos", str(disk)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            self.skipped["disk_full"] = f"no small file system could be mounted: {done.stderr.strip()}"
            return
        stack.callback(subprocess.run, ["umount", "-l", str(disk)], check=False)
        self.disk = disk

    def _judge(self, stack: ExitStack) -> None:
        self.judge = Judge(self.client, topology, self._stream, self.writes)
        for name in (topology.source.topics[0], PREDICTIONS):
            self.judge.follow(name, range(PARTITIONS))
        self.judge.follow(topology.dead_letters.topic, range(1))
        self.judge.thread.start()
        stack.callback(self.judge.stop)

    def _command(self) -> list[str]:
        if self.shape.who == "worker":
            config = ["--config", str(self._config())]
            return [sys.executable, "-m", "streamml", "run", "loadtests/faults/topology.py", *config]
        where = [self.settings.brokers, self.settings.redis.url, topology.name, str(self.shape.session_s * 1000)]
        return [sys.executable, "-m", "loadtests.naive_loop", *where]

    def _environment(self) -> dict[str, str]:
        return {
            HANG_FILE: str(self.hang_file),
            CLOCK_FILE: str(self.clock_file),
            "PYTHONPATH": os.pathsep.join([str(CLOCK_SHIM), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "STREAMML_STATE_DIR": str(self.folder / "state"),
        }

    def _config(self) -> Path:
        """The workers' settings, as a file."""
        session_ms = self.shape.session_s * 1000
        lines = [
            f'brokers = "{self.settings.brokers}"',
            "[kafka]",
            *(f'"{name}" = {value}' for name, value in _REFRESH.items()),
            "[kafka.consumer]",
            f'"session.timeout.ms" = {session_ms}',
            f'"heartbeat.interval.ms" = {session_ms // 4}',
            "[redis]",
            f'url = "{self.settings.redis.url}"',
            "[model]",
            f'repository = "{MODELS}"',
        ]
        lines += ["[worker]", f"stuck_after_ms = {STUCK_AFTER_S * 1000:.0f}"]
        lines += [f'processing_guarantee = "{self.shape.guarantee}"']
        path = self.folder / "streamml.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def _start_workers(self) -> None:
        self._progress(f"Starting {self.shape.workers} workers")
        for _ in range(self.shape.workers):
            self.crew.hire()
        admin = KafkaAdmin(self.client)
        deadline = time.monotonic() + _START_S
        while not admin.group_is_stable(topology.name):
            self.crew.check()
            if time.monotonic() > deadline:
                raise FatalError(f"The workers have not joined their group; {self.logs()}")
            self.over.wait(0.2)

    def workers_leave(self) -> None:
        """All workers leave in good order."""
        self.crew.end(_LEAVE_S)

    def ends(self) -> dict[tuple[str, int], int]:
        """Where every topic ends now."""
        letters = self.topology.dead_letters.topic
        probe = KafkaSource(
            [*self.topology.source.topics, PREDICTIONS, letters], "chaos-probe", "earliest", self.client
        )
        try:
            return {(where.topic, where.partition): high for where, (_, high) in probe.watermarks().items()}
        finally:
            probe.close()

    def uncommitted(self) -> dict[int, int]:
        """Records that the group has not committed, by partition of the input."""
        probe = KafkaSource(self.topology.source.topics, self.topology.name, "earliest", self.client)
        try:
            committed = probe.committed()
            return {
                where.partition: high - committed.get(where, low) for where, (low, high) in probe.watermarks().items()
            }
        finally:
            probe.close()

    def group(self) -> str:
        """Who has which partition, in words: for a run that has come to a stop."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        from streamml.adapters.kafka.client import opened

        admin = opened(AdminClient, self.client)  # Without a name it would be gone before it has an answer.
        answer = admin.describe_consumer_groups([self.topology.name], request_timeout=30)
        try:
            described = answer[self.topology.name].result(60)
        except KafkaException as error:
            return f"the group cannot be described: {error}"
        members = {
            str(one.group_instance_id or one.member_id): [where.partition for where in one.assignment.topic_partitions]
            for one in described.members
        }
        return (
            f"the group is {described.state.name}, partitions are with {members}, uncommitted are {self.uncommitted()}"
        )

    def copy_logs(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for path in [
            *self.folder.rglob("worker-*.log"),
            *self.folder.rglob("writer.log"),
            *self.folder.rglob("kafka.log"),
            *self.folder.rglob("redis.log"),
        ]:
            # Each node of a cluster has a folder of its own, and all have logs of one name.
            shutil.copy(path, folder / "-".join(path.relative_to(self.folder).parts))

    def logs(self, lines: int = 15) -> str:
        """The ends of the workers' logs."""
        ends = {
            path.name: path.read_text(errors="replace").splitlines()[-lines:]
            for path in sorted(self.folder.glob("*.log"))
        }
        return "\n".join(f"{name}:\n  " + "\n  ".join(end) for name, end in ends.items())
