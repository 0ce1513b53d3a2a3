"""The flight-delay job under faults, by the worker and by the hand-written loop: ``python -m loadtests.chaos [--out FILE]``.

kill: SIGKILL every 6 s for 25 s at 1,000 events/s, started again at once. poison: 15 s at 1,000 events/s with 23 records that are no
departures; who dies is started again. Afterwards a plain client reads the predictions and counts by flight: lost, duplicated, wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.tail import read_topic
from streamml.compose.locate import locate_topology
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.features import load_file
from streamml.ops.topics import create_topics
from streamml.ports.feature_store import FeatureSchema
from streamml.settings.settings import RedisSettings, Settings
from topologies.flight_delay.stream import Stream, poison, prepare
from topologies.flight_delay.topology import FEATURE_SETS

RATE = 1000
PATIENCE_S = 110.0
Command = Callable[[Settings, str], list[str]]


def worker(settings: Settings, group: str) -> list[str]:
    """`streamml run`."""
    where = ["--brokers", settings.brokers, "--redis-url", settings.redis.url]
    return [sys.executable, "-m", "streamml", "run", "topologies/flight_delay", *where, "--group", group]


def naive(settings: Settings, group: str) -> list[str]:
    """The hand-written loop."""
    return [sys.executable, "-m", "loadtests.naive_loop", settings.brokers, settings.redis.url, group]


@dataclass
class Subject:
    """A process that is started again whenever it ends, until it is stopped."""

    command: list[str]
    starts: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    process: subprocess.Popen[bytes] | None = None

    def watch(self) -> None:
        while not self.ended.is_set():
            self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.starts += 1
            self.process.wait()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def stop(self, thread: threading.Thread) -> None:
        self.ended.set()
        self.kill()
        thread.join()


@contextmanager
def servers(stream: Stream) -> Iterator[Settings]:
    """Kafka and Redis with topics and features."""
    with tempfile.TemporaryDirectory(prefix="streamml-chaos-") as folder:
        kafka, redis = EmbeddedKafka(Path(folder) / "kafka"), EmbeddedRedis(Path(folder) / "redis")
        try:
            kafka.start()
            redis.start()
            settings = Settings(brokers=kafka.bootstrap_servers, redis=RedisSettings(url=redis.url))
            create_topics(locate_topology("topologies/flight_delay").found, settings, 4, 1)
            sets = {one.name: one for one in FEATURE_SETS}
            for name, path in stream.write_features(Path(folder)):
                schema = FeatureSchema(name, tuple(sets[name].columns.items()))
                load_file(path, schema, sets[name].key, url=redis.url)
            yield settings
        finally:
            redis.stop()
            kafka.stop()


def run(command: Command, stream: Stream, *, kills: bool, poisoned: frozenset[int]) -> dict[str, Any]:
    """One fault on one subject; what the counting client found."""
    with servers(stream) as settings:
        subject = Subject(command(settings, f"chaos-{uuid.uuid4().hex[:8]}"))
        thread = threading.Thread(target=subject.watch)
        thread.start()
        _wait_for_group(settings, subject)
        killers = [threading.Timer(6.0 * number, subject.kill) for number in range(1, 5)] if kills else []
        for killer in killers:
            killer.start()
        try:
            watch = _Watch(settings)
            _produce(settings, stream, poisoned)
            watch.settle(len(stream))
        finally:
            subject.stop(thread)
        return {**_count(settings, stream), "starts": subject.starts, "longest_silence_s": round(watch.longest_s, 1)}


def _wait_for_group(settings: Settings, subject: Subject) -> None:
    admin = KafkaAdmin(settings.client())
    group = subject.command[-1]
    deadline = time.monotonic() + 60
    while not admin.group_is_stable(group):
        if time.monotonic() > deadline:
            raise TimeoutError("the subject has not joined its group within a minute")
        time.sleep(0.2)


def _produce(settings: Settings, stream: Stream, poisoned: frozenset[int]) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": settings.brokers, "linger.ms": 5})
    dice = random.Random(23)
    begun, sent = time.perf_counter(), 0
    while sent < len(stream):
        due = min(len(stream), int((time.perf_counter() - begun) * RATE) + 1)
        for event in range(sent, due):
            producer.produce("departures", stream.values[event], stream.keys[event])
            if event in poisoned:
                producer.produce("departures", poison(stream.values[event], dice), stream.keys[event])
        sent = due
        producer.poll(0.005)
    producer.flush(30)


class _Watch:
    """Follows how many predictions there are, and for how long none came."""

    def __init__(self, settings: Settings) -> None:
        from confluent_kafka import Consumer, TopicPartition

        self._consumer = Consumer({"bootstrap.servers": settings.brokers, "group.id": "chaos-watch"})
        self._places = [TopicPartition("arrival-predictions", number) for number in range(4)]
        self.longest_s = 0.0
        self._seen, self._moved = 0, time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def settle(self, events: int) -> None:
        """Wait until there are as many predictions as events, or nothing moves any more."""
        while self._seen < events and time.monotonic() - self._moved < PATIENCE_S:
            time.sleep(0.2)
        time.sleep(2.0)  # Duplicates of the last batch, if there are any.
        self._ended.set()
        self._thread.join()
        self._consumer.close()

    def _follow(self) -> None:
        while not self._ended.wait(0.1):
            now = sum(self._consumer.get_watermark_offsets(place, timeout=10)[1] for place in self._places)
            if now != self._seen:
                self.longest_s = max(self.longest_s, time.monotonic() - self._moved if self._seen else 0.0)
                self._seen, self._moved = now, time.monotonic()


def _count(settings: Settings, stream: Stream) -> dict[str, int]:
    expected = dict(zip(stream.flight_ids, stream.expected.tolist(), strict=True))
    seen: Counter[str] = Counter()
    wrong = 0
    for one in read_topic(settings.client(), "arrival-predictions"):
        prediction = json.loads(one.record.value or b"{}")
        seen[prediction["flight_id"]] += 1
        wrong += abs(prediction["late_probability"] - expected.get(prediction["flight_id"], -1.0)) > 1e-4
    letters = len(list(read_topic(settings.client(), "departures.dlq")))
    return {
        "events": len(stream),
        "lost": len(expected.keys() - seen.keys()),
        "duplicated": sum(seen.values()) - len(seen),
        "wrong": wrong,
        "dead_letters": letters,
    }


def main() -> None:
    """Both faults, both subjects."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the result here, as JSON")
    arguments = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    for name, events, kills, bad in (("kill", 25_000, True, 0), ("poison", 15_000, False, 23)):
        stream = prepare(events)
        poisoned = frozenset(random.Random(7).sample(range(events), bad))
        for who, command in (("worker", worker), ("naive", naive)):
            results.setdefault(name, {})[who] = run(command, stream, kills=kills, poisoned=poisoned)
            print(name, who, json.dumps(results[name][who]), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
