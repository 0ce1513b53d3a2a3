"""Reads what workers publish, as a downstream service would, and keeps the referee's books."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np

from streamml.batch.microbatch import Int
from streamml.engine.feature_log import LogSchema
from streamml.ops.referee import Place, Referee, Verdict, provenance_of
from streamml.ports.feature_log import LoggedRows
from streamml.telemetry.latency import LatencyHistogram

_RECENT: Final = 8
_LATE_S: Final = 0.5
_PATIENCE_S: Final = 3.0

OnPredictions = Callable[[Sequence[Mapping[str, Any]]], None]


class Explains(Protocol):
    """What knows which predictions an event may get, given the features that it was logged with."""

    def logged(self, events: Int, rows: LoggedRows) -> None:
        """Rows of the feature log, of whichever partitions, and the event of each, int64 ``[n]``."""

    def is_right(self, event: int, probability: float, flags: str, *, unlogged: bool) -> bool | None:
        """Whether an event may get this; ``None`` where its row has not come yet.

        Args:
            unlogged: whether the log need not have the row that it was made of.
        """


class Judge:
    """A thread that consumes predictions, dead letters, and the feature log with a plain client.

    Args:
        brokers: ``host:port`` of the broker.
        predictions, dead_letters: topics.
        is_right: see `Referee`.
        on_predictions: hears of predictions, the first of each record and revision.
        log: topic and schema of the feature log, and what explains predictions by it; then ``is_right`` is not asked.
    """

    def __init__(
        self,
        brokers: str,
        predictions: str,
        dead_letters: str,
        is_right: Callable[[int, Any], bool],
        on_predictions: OnPredictions,
        log: tuple[str, LogSchema, Explains] | None = None,
    ) -> None:
        from confluent_kafka import Consumer

        from streamml.adapters.kafka.client import opened

        own = {"group.id": "streamml-demo-judge", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        self._consumer: Any = opened(Consumer, {"bootstrap.servers": brokers, "fetch.queue.backoff.ms": 10, **own})
        self._topics = (predictions, dead_letters, *(() if log is None else (log[0],)))
        self._log = log
        self._events: dict[Place, int] = {}
        self._unread: list[tuple[float, int, LoggedRows]] = []
        self._logged_at: dict[int, float] = {}
        self._referee = Referee(is_right if log is None else self._is_explained)
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
            if event is not None and self._log is not None:
                self._events[place] = event

    def verdict(self, *, under_way: bool = False) -> Verdict:
        """See `Referee.verdict`."""
        with self._lock:
            self._read_log()
            return self._referee.verdict(under_way=under_way)

    @property
    def undecided(self) -> int:
        """Predictions that wait for their row of the feature log."""
        with self._lock:
            return self._referee.undecided

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
                if message.topic() != self._topics[0]:
                    self._unread.append((now, *self._logged_by(message)))
                    continue
                made = provenance_of(message.headers())
                value = {**json.loads(message.value()), "made": made, "came": now}
                if self._referee.predicted(made.id, message.partition(), value, made.revision):
                    (corrections if made.revision else fresh).append(value)
                    stamps += [] if made.revision else [message.timestamp()[1]]
            self._read_log()
        self.progress_at = time.monotonic()
        self._on_predictions(corrections)
        if fresh:
            latencies = now * 1000 - np.array(stamps)
            self.latency.add(latencies)
            self.lately.extend((now, float(latency)) for latency in latencies)
            self.newest_ms = max(self.newest_ms, *stamps)
            self.recent.extend(fresh[-_RECENT:])
            self._on_predictions(fresh)

    def _logged_by(self, message: Any) -> tuple[int, LoggedRows]:
        """Source partition and rows of a record of the log."""
        assert self._log is not None
        return int(message.key().decode().rpartition("/")[2]), self._log[1].decode(message.value())

    def _read_log(self) -> None:
        """Tell of the rows whose events are known; the acknowledgements of others are on the way."""
        unread, self._unread = self._unread, []
        found: list[Int] = []
        parts: list[LoggedRows] = []
        for came, partition, rows in unread:
            events = np.array([self._events.get(Place(partition, offset), -1) for offset in rows.offset.tolist()])
            known = events >= 0
            if not known.all():
                self._unread.append((came, partition, rows.take(~known)))
            if known.any():
                found.append(events[known])
                parts.append(rows.take(known))
                for event in found[-1].tolist():
                    self._logged_at.setdefault(event, came)
        if self._log is not None and parts:
            self._log[2].logged(np.concatenate(found), LoggedRows.join(parts))

    def _is_explained(self, event: int, value: Mapping[str, Any]) -> bool | None:
        """A record that a killed worker had scored is scored again, with the recent values of later: of either prediction the row of the
        log may be yet to come, and of the first it may never come."""
        assert self._log is not None
        made, came, explains = value["made"], value["came"], self._log[2].is_right
        found = explains(event, value["late_probability"], made.flags, unlogged=bool(made.revision))
        if found or made.revision:
            return found
        logged_at = self._logged_at.get(event)
        if logged_at is None or time.time() - came < _PATIENCE_S:
            return None
        return explains(event, value["late_probability"], made.flags, unlogged=logged_at - came > _LATE_S)
