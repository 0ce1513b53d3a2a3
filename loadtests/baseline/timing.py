"""Servers of its own for a comparison, and how long a process takes for a backlog there.

Drains are timed by the broker: the output topic stamps records as they are appended, so that start-up counts for nobody.
"""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis

PARTITIONS = 4
_QUIET_S = 1.0
_ENDING_S = 20.0
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Servers:
    """Where to reach what, and the process of the broker; 0: not known."""

    brokers: str
    redis_url: str
    broker_pid: int = 0


Command = Callable[[Servers, str, str, int], list[str]]
"""The command line of a process that reads one topic and writes another, by servers, their names, and a number of events."""


@dataclass(frozen=True)
class Backlog:
    """What there is to drain."""

    topic: str
    events: int


@dataclass(frozen=True)
class Drain:
    """One backlog drained: events per second, processor seconds per million, resident memory in MB at a fifth and at most.

    Args:
        printed: what the process wrote to its standard output.
    """

    events_per_s: float
    cpu_s_per_million: float
    early_mb: float
    most_mb: float
    printed: str


@contextmanager
def started_servers(tell: Tell) -> Iterator[Servers]:
    """Kafka and Redis until the block ends."""
    with tempfile.TemporaryDirectory(prefix="streamml-bench-") as folder:
        kafka, redis = EmbeddedKafka(Path(folder) / "kafka", progress=tell), EmbeddedRedis(Path(folder) / "redis")
        try:
            tell("Starting Kafka and Redis")
            kafka.start()
            redis.start()
            yield Servers(kafka.bootstrap_servers, redis.url, kafka.pid or 0)
        finally:
            redis.stop()
            kafka.stop()


def make_topic(servers: Servers, name: str, *, stamped: bool = False) -> str:
    """Make a topic; with ``stamped`` the broker writes when it appended each record. Returns the name."""
    config = {"message.timestamp.type": "LogAppendTime"} if stamped else {}
    if name.endswith("dlq"):
        config["max.message.bytes"] = "16777216"
    KafkaAdmin({"bootstrap.servers": servers.brokers}).create([NewTopicPlan(name, PARTITIONS, 1, config)])
    return name


def drain(servers: Servers, backlog: Backlog, command: Command, limit_s: float = 600.0) -> Drain:
    """Let a process drain a backlog.

    Raises:
        TimeoutError: it was not through after ``limit_s``.
        RuntimeError: it ended with an error before.
    """
    out = make_topic(servers, f"out.{uuid.uuid4().hex}", stamped=True)
    process = subprocess.Popen(command(servers, backlog.topic, out, backlog.events), stdout=subprocess.PIPE, text=True)
    memory = _Memory(process.pid)
    before = _children_cpu_s()
    try:
        first, last = _appended(servers, out, backlog.events, process, limit_s)
    finally:
        printed = ended(process)
        memory.stop()
    cpu = _children_cpu_s() - before
    most_mb = max(memory.samples, default=0.0)
    return Drain(backlog.events / (last - first), cpu / backlog.events * 1e6, memory.early_mb, most_mb, printed)


def ended(process: subprocess.Popen[str]) -> str:
    """End a process, by force where it does not obey; what it printed."""
    process.terminate()
    try:
        return process.communicate(timeout=_ENDING_S)[0] or ""
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0] or ""


def _children_cpu_s() -> float:
    """Processor seconds of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _appended(
    servers: Servers, topic: str, count: int, process: subprocess.Popen[str], limit_s: float
) -> tuple[float, float]:
    """Wait for ``count`` records; when the broker appended the first and the last, in seconds."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

    admin: Any = AdminClient({"bootstrap.servers": servers.brokers})
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    _wait_until_filled(admin, places, count, process, limit_s)
    first = _first_appended(servers, places)
    # The last append of an exactly-once worker is the marker that makes its last predictions visible.
    spec: Any = OffsetSpec
    latest = admin.list_offsets(dict.fromkeys(places, spec.max_timestamp())).values()
    return first, max(one.result().timestamp for one in latest) / 1000


def _wait_until_filled(
    admin: Any, places: list[Any], count: int, process: subprocess.Popen[str], limit_s: float
) -> None:
    """Until ``count`` records are there, and for a second no more came: markers of transactions take offsets too."""
    deadline = time.monotonic() + limit_s
    length, grown_at = 0, time.monotonic()
    while length < count or time.monotonic() - grown_at < _QUIET_S:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{length:,} of {count:,} events in {limit_s:.0f} s")
        if process.poll():
            raise RuntimeError(f"ended with exit code {process.returncode} after {length:,} of {count:,} events")
        time.sleep(0.05)
        now = _length(admin, places)
        if now != length:
            length, grown_at = now, time.monotonic()


def _length(admin: Any, places: list[Any]) -> int:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

    spec: Any = OffsetSpec
    try:
        return sum(one.result().offset for one in admin.list_offsets(dict.fromkeys(places, spec.latest())).values())
    except KafkaException:
        return 0  # A topic that was just made has no leader for a moment.


def _first_appended(servers: Servers, places: list[Any]) -> float:
    """When the broker appended the first record of all partitions, in seconds."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": servers.brokers, "group.id": "bench", "enable.partition.eof": True})
    stamps: list[int] = []
    for place in places:
        consumer.assign([TopicPartition(place.topic, place.partition, 0)])
        message = consumer.poll(10)
        if message is None:
            raise TimeoutError(f"{place.topic} could not be read back")
        stamps += [message.timestamp()[1]] if message.error() is None else []
    consumer.close()
    return min(stamps) / 1000


class _Memory:
    """Samples the resident memory of a process, ten times a second."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/statm")
        self._ended = threading.Event()
        self.samples: list[float] = []
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    @property
    def early_mb(self) -> float:
        """The most within the first fifth of the run."""
        return max(self.samples[: max(1, len(self.samples) // 5)], default=0.0)

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._ended.wait(0.1):
            try:
                self.samples.append(int(self._status.read_text().split()[1]) * page / 1e6)
            except OSError:
                return
