"""The worker, at least once and exactly once, next to a bare client loop and a hand-written one: ``streamml bench``.

Drains are timed by the broker: the output topic stamps records as they are appended, so that start-up counts for nobody; the broker's own
warming up is drained away first. Latencies are from
the event's record time to its arrival at a plain consumer. Rounds alternate between the two; figures are medians.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from loadtests.baseline.load import load_features, produce_all, produce_steadily
from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis

HERE = Path(__file__).parent
PARTITIONS = 4
_QUIET_S = 1.0
Tell = Callable[[str], None]


@dataclass(frozen=True)
class BenchOptions:
    """How much is measured.

    Args:
        events: size of the backlog.
        rounds: drains of each, worker and bare loop in turn.
        rates: events per second of the latency runs.
        seconds: length of a latency run.
    """

    events: int = 1_000_000
    rounds: int = 3
    rates: tuple[int, ...] = (2_000, 20_000)
    seconds: float = 10.0


@dataclass(frozen=True)
class Drain:
    """One backlog drained: events per second, processor seconds per million, resident memory in MB at a fifth and at most."""

    events_per_s: float
    cpu_s_per_million: float
    early_mb: float
    most_mb: float


@dataclass(frozen=True)
class Servers:
    """Where to reach what."""

    brokers: str
    redis_url: str


def bench(options: BenchOptions, tell: Tell) -> dict[str, Any]:
    """Measure; returns the result as a document."""
    with _servers(tell) as servers:
        tell(f"Writing a backlog of {options.events:,} events")
        _topic(servers, "baseline.events")
        _topic(servers, "baseline.dlq")
        load_features(servers.redis_url)
        produce_all(servers.brokers, "baseline.events", options.events)
        drains: dict[str, list[Drain]] = {who: [] for who in ("bare", "worker", "hand_written", "exactly_once")}
        steps: dict[str, float] = {}
        tell("Warming up the broker: a drain that does not count")
        _drain(servers, options, _bare)
        _drain(servers, options, _bare)
        for number in range(options.rounds):
            tell(f"Drain {number + 1} of {options.rounds}")
            drains["bare"].append(_drain(servers, options, _bare)[0])
            drain, steps = _drain(servers, options, _worker)
            drains["worker"].append(drain)
            drains["hand_written"].append(_drain(servers, options, _hand_written)[0])
            drains["exactly_once"].append(_drain(servers, options, _exactly_once)[0])
        latency = {str(rate): _latencies(servers, rate, options, tell) for rate in options.rates}
    return {"conditions": _conditions(options), **_figures(drains, steps), "latency_ms": latency}


@contextmanager
def _servers(tell: Tell) -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="streamml-bench-") as folder:
        kafka, redis = EmbeddedKafka(Path(folder) / "kafka", progress=tell), EmbeddedRedis(Path(folder) / "redis")
        try:
            tell("Starting Kafka and Redis")
            kafka.start()
            redis.start()
            yield Servers(kafka.bootstrap_servers, redis.url)
        finally:
            redis.stop()
            kafka.stop()


def _topic(servers: Servers, name: str, *, stamped: bool = False) -> str:
    config = {"message.timestamp.type": "LogAppendTime"} if stamped else {}
    if name.endswith("dlq"):
        config["max.message.bytes"] = "16777216"
    KafkaAdmin({"bootstrap.servers": servers.brokers}).create([NewTopicPlan(name, PARTITIONS, 1, config)])
    return name


Command = Callable[[Servers, str, str, int], list[str]]


def _bare(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
    return [sys.executable, "-m", "loadtests.baseline.bare_loop", servers.brokers, topic_in, topic_out, str(count)]


def _worker(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
    return [sys.executable, "-m", "loadtests.baseline.worker", servers.brokers, servers.redis_url, topic_in, topic_out]


def _hand_written(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
    where = [servers.brokers, servers.redis_url, topic_in, topic_out]
    return [sys.executable, "-m", "loadtests.baseline.hand_written", *where]


def _exactly_once(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
    return [*_worker(servers, topic_in, topic_out, count), "exactly_once"]


def _drain(servers: Servers, options: BenchOptions, command: Command) -> tuple[Drain, dict[str, float]]:
    out = _topic(servers, f"out.{uuid.uuid4().hex}", stamped=True)
    process = subprocess.Popen(
        command(servers, "baseline.events", out, options.events), stdout=subprocess.PIPE, text=True
    )
    memory = _Memory(process.pid)
    before = _children_cpu_s()
    try:
        first, last = _appended(servers, out, options.events)
    finally:
        process.terminate()
        printed = process.communicate()[0]
        memory.stop()
    cpu = _children_cpu_s() - before
    steps = json.loads(printed)["us_per_row"] if printed.strip() else {}
    drain = Drain(
        options.events / (last - first), cpu / options.events * 1e6, memory.early_mb, max(memory.samples, default=0.0)
    )
    return drain, steps


def _children_cpu_s() -> float:
    """Processor seconds of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _appended(servers: Servers, topic: str, count: int) -> tuple[float, float]:
    """Wait for ``count`` records; when the broker appended the first and the last, in seconds."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

    admin: Any = AdminClient({"bootstrap.servers": servers.brokers})
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    _wait_until_filled(admin, places, count)
    first = _first_appended(servers, places)
    # The last append of an exactly-once worker is the marker that makes its last predictions visible.
    latest = admin.list_offsets(dict.fromkeys(places, OffsetSpec.max_timestamp())).values()
    return first, max(one.result().timestamp for one in latest) / 1000


def _wait_until_filled(admin: Any, places: list[Any], count: int) -> None:
    """Until ``count`` records are there, and for a second no more came: markers of transactions take offsets too."""
    deadline = time.monotonic() + 600
    length, grown_at = 0, time.monotonic()
    while length < count or time.monotonic() - grown_at < _QUIET_S:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{places[0].topic} did not fill within ten minutes")
        time.sleep(0.05)
        now = _length(admin, places)
        if now != length:
            length, grown_at = now, time.monotonic()


def _length(admin: Any, places: list[Any]) -> int:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

    try:
        return sum(
            one.result().offset for one in admin.list_offsets(dict.fromkeys(places, OffsetSpec.latest())).values()
        )
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


def _latencies(servers: Servers, rate: int, options: BenchOptions, tell: Tell) -> dict[str, dict[str, float]]:
    rounds: dict[str, list[dict[str, float]]] = {"bare": [], "worker": [], "hand_written": []}
    for number in range(options.rounds):
        tell(f"Latency at {rate:,} events/s, {number + 1} of {options.rounds}")
        rounds["bare"].append(_latency(servers, rate, options, _bare))
        rounds["worker"].append(_latency(servers, rate, options, _worker))
        rounds["hand_written"].append(_latency(servers, rate, options, _hand_written))
    return {
        who: {name: round(median(one[name] for one in found), 2) for name in found[0]} for who, found in rounds.items()
    }


def _latency(servers: Servers, rate: int, options: BenchOptions, command: Command) -> dict[str, float]:
    topic_in = _topic(servers, f"in.{uuid.uuid4().hex}")
    topic_out = _topic(servers, f"out.{uuid.uuid4().hex}")
    process = subprocess.Popen(
        command(servers, topic_in, topic_out, sys.maxsize), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    watcher = subprocess.Popen(
        [sys.executable, "-m", "loadtests.baseline.watcher", servers.brokers, topic_out],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watcher.stdout is not None
        produce_steadily(servers.brokers, topic_in, 100, 2.0)
        watcher.stdout.readline()  # The first record came through: everybody is there.
        produce_steadily(servers.brokers, topic_in, rate, options.seconds)
    finally:
        process.terminate()
        process.wait()
        watcher.terminate()
        printed = watcher.communicate()[0]
    latencies = np.array(json.loads(printed.strip().splitlines()[-1]))
    # The first second belongs to those who are still warming up.
    kept = latencies[200 + rate :]
    return {f"p{share}": float(np.percentile(kept, share)) for share in (50, 95, 99)}


def _figures(drains: dict[str, list[Drain]], steps: dict[str, float]) -> dict[str, Any]:
    def middle(who: str, name: str) -> float:
        return float(median(getattr(one, name) for one in drains[who]))

    def ratios(of: str, to: str) -> list[float]:
        return [a.events_per_s / b.events_per_s for a, b in zip(drains[of], drains[to], strict=True)]

    to_bare, to_worker, to_hand = (
        ratios("worker", "bare"),
        ratios("exactly_once", "worker"),
        ratios("worker", "hand_written"),
    )
    return {
        "events_per_s": {who: round(middle(who, "events_per_s")) for who in drains},
        "ratio": round(median(to_bare), 3),
        "ratios": [round(ratio, 3) for ratio in to_bare],
        "hand_written_ratio": round(median(to_hand), 3),
        "hand_written_ratios": [round(ratio, 3) for ratio in to_hand],
        "exactly_once_ratio": round(median(to_worker), 3),
        "exactly_once_ratios": [round(ratio, 3) for ratio in to_worker],
        "cpu_s_per_million": {who: round(middle(who, "cpu_s_per_million"), 2) for who in drains},
        "us_per_event": {who: round(1e6 / middle(who, "events_per_s"), 2) for who in drains},
        "us_per_row_by_step": steps,
        "resident_mb": {
            "early": round(middle("worker", "early_mb")),
            "most": round(middle("worker", "most_mb")),
        },
    }


def _conditions(options: BenchOptions) -> dict[str, Any]:
    packages = ("confluent-kafka", "numpy", "onnxruntime", "msgspec", "redis", "hiredis")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "kafka": "Apache Kafka 4.1.1 (KRaft), embedded, on the same machine",
        "events": options.events,
        "rounds": options.rounds,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
