"""How quickly a worker is there: ``python loadtests/micro/bench_start.py [--rounds N] [--json]``.

A worker of the benchmark's job is started on an embedded Kafka and Redis with one event waiting for it, by the command that
a user types. Timed are its line "Running", told when everything is checked and it joins its group, and its first
prediction as a reader of the topic sees it. "New" is a group that never ran; "again" one that did. Then what an idle worker
takes of a processor, and ``streamml --help``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from loadtests.baseline.load import load_features, produce_all
from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis

PATIENCE_S = 60.0
IDLE_S = 10.0


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Kafka and Redis with the job's topics and features; what a worker's environment says of them."""
    with tempfile.TemporaryDirectory() as folder:
        kafka, redis = EmbeddedKafka(Path(folder) / "kafka"), EmbeddedRedis(Path(folder) / "redis")
        try:
            kafka.start()
            redis.start()
            plans = [NewTopicPlan(f"baseline.{part}", 1, 1) for part in ("events", "predictions")]
            letters = NewTopicPlan("baseline.dlq", 1, 1, {"max.message.bytes": "2000000"})
            KafkaAdmin({"bootstrap.servers": kafka.bootstrap_servers}).create([*plans, letters])
            load_features(redis.url)
            yield {
                **os.environ,
                "STREAMML_BROKERS": kafka.bootstrap_servers,
                "STREAMML_REDIS_URL": redis.url,
                "STREAMML_STATE_DIR": folder,
            }
        finally:
            redis.stop()
            kafka.stop()


class Started:
    """A worker that was started just now; its seconds count from there."""

    def __init__(self, environment: dict[str, str], group: str) -> None:
        reader = Consumer({"bootstrap.servers": environment["STREAMML_BROKERS"], "group.id": "bench"})
        place = TopicPartition("baseline.predictions", 0)
        place.offset = reader.get_watermark_offsets(place)[1]
        reader.assign([place])
        reader.poll(0.5)
        produce_all(environment["STREAMML_BROKERS"], "baseline.events", 1)
        self._begun = time.monotonic()
        self.running_s = float("nan")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamml", "run", "loadtests/baseline/topology.py:topology", "--group", group],
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        if reader.poll(PATIENCE_S) is None:
            raise TimeoutError("no prediction came")
        self.prediction_s = time.monotonic() - self._begun
        reader.close()

    def _listen(self) -> None:
        for line in self.process.stderr or ():
            if line.startswith("Running"):
                self.running_s = time.monotonic() - self._begun
            else:
                sys.stderr.write(line)

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """In good order."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def start(environment: dict[str, str], group: Callable[[], str], rounds: int) -> dict[str, float]:
    """Medians of as many starts."""
    found: list[dict[str, float]] = []
    for _ in range(rounds):
        worker = Started(environment, group())
        found.append({"running_s": worker.running_s, "prediction_s": worker.prediction_s, "cpu_s": worker.cpu_s()})
        worker.end()
    return {name: round(median(one[name] for one in found), 3) for name in found[0]}


def idle_share(environment: dict[str, str]) -> float:
    """Share of one processor that a worker without records takes."""
    worker = Started(environment, "idle")
    time.sleep(2)
    before = worker.cpu_s()
    time.sleep(IDLE_S)
    share = (worker.cpu_s() - before) / IDLE_S
    worker.end()
    return round(share, 4)


def help_s(rounds: int) -> float:
    """Seconds until ``streamml --help`` has been printed."""
    found: list[float] = []
    for _ in range(rounds):
        begun = time.monotonic()
        subprocess.run([sys.executable, "-m", "streamml", "--help"], check=True, stdout=subprocess.DEVNULL)
        found.append(time.monotonic() - begun)
    return round(median(found), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with servers() as environment:
        result: dict[str, Any] = {
            "new": start(environment, lambda: uuid.uuid4().hex, asked.rounds),
            "again": start(environment, lambda: "again", asked.rounds + 1),
            "idle_share": idle_share(environment),
            "help_s": help_s(asked.rounds),
        }
    print(json.dumps(result) if asked.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
