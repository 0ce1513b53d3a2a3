"""Reads what workers publish, as a downstream service would, and keeps the referee's books."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from streamml.ops.referee import Place, Referee, Verdict, provenance_of
from streamml.telemetry.latency import LatencyHistogram

_RECENT: Final = 8

OnPredictions = Callable[[Sequence[Mapping[str, Any]]], None]


class Judge:
    """A thread that consumes predictions and dead letters with a plain client.

    Args:
        brokers: ``host:port`` of the broker.
        predictions, dead_letters: topics.
        is_right: see `Referee`.
        on_predictions: hears of predictions, the first of each record and revision.
    """

    def __init__(
        self,
        brokers: str,
        predictions: str,
        dead_letters: str,
        is_right: Callable[[int, Any], bool],
        on_predictions: OnPredictions,
    ) -> None:
        from confluent_kafka import Consumer

        from streamml.adapters.kafka.client import opened

        own = {"group.id": "streamml-demo-judge", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        self._consumer: Any = opened(Consumer, {"bootstrap.servers": brokers, "fetch.queue.backoff.ms": 10, **own})
        self._topics = (predictions, dead_letters)
        self._referee = Referee(is_right)
        self._on_predictions = on_predictions
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.latency = LatencyHistogram()
        self.lately: deque[tuple[float, float]] = deque(maxlen=20_000)
        self.recent: deque[Mapping[str, Any]] = deque(maxlen=_RECENT)
        self.newest_ms = 0
        self.progress_at = time.monotonic()
        self.thread = threading.Thread(target=self._watch, name="streamml-demo-judge", daemon=True)

    def produced(self, place: Place, event: int | None) -> None:
        """A record is in the input topic."""
        with self._lock:
            self._referee.produced(place, event)

    def verdict(self, *, under_way: bool = False) -> Verdict:
        """See `Referee.verdict`."""
        with self._lock:
            return self._referee.verdict(under_way=under_way)

    def stop(self) -> None:
        self._ended.set()
        self.thread.join()
        self._consumer.close()

    def _watch(self) -> None:
        from confluent_kafka import TopicPartition

        known = self._consumer.list_topics(timeout=10).topics
        self._consumer.assign(
            [TopicPartition(topic, number, 0) for topic in self._topics for number in known[topic].partitions]
        )
        while not self._ended.is_set():
            first = self._consumer.poll(0.05)
            if first is not None:
                self._take([first, *self._consumer.consume(2000, 0)])

    def _take(self, messages: list[Any]) -> None:
        now = time.time()
        good = [message for message in messages if message.error() is None]
        fresh: list[Mapping[str, Any]] = []
        corrections: list[Mapping[str, Any]] = []
        stamps: list[int] = []
        with self._lock:
            for message in good:
                if message.topic() == self._topics[1]:
                    self._referee.dead_lettered(message.key().decode())
                    continue
                value, made = json.loads(message.value()), provenance_of(message.headers())
                if self._referee.predicted(made.id, message.partition(), value, made.revision):
                    (corrections if made.revision else fresh).append(value)
                    stamps += [] if made.revision else [message.timestamp()[1]]
        self.progress_at = time.monotonic()
        self._on_predictions(corrections)
        if fresh:
            latencies = now * 1000 - np.array(stamps)
            self.latency.add(latencies)
            self.lately.extend((now, float(latency)) for latency in latencies)
            self.newest_ms = max(self.newest_ms, *stamps)
            self.recent.extend(fresh[-_RECENT:])
            self._on_predictions(fresh)
