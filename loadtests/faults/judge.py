"""Reads input, predictions and dead letters as a plain client does, and keeps the referee's books."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtests.faults.fast import Use, Writes
from loadtests.faults.feeder import NUMBER
from loadtests.faults.stream import DROPPED, TOLERANCE, Stream
from streamml.engine.identity import HEADER, read_header
from streamml.ops.demo.freshness import fates_of
from streamml.ops.referee import Place, Referee, Verdict
from streamml.topology.topology import Topology

_FOREVER = float("inf")


class Judge:
    """A thread that consumes everything that a run writes.

    Only what a ``read_committed`` reader gets counts: with transactions, what was aborted was never there.

    Attributes:
        produced_at, first_at, duplicate_at: when each came, in seconds of the monotonic clock.
        dropped: records that are to end without a trace.
        sent_at: see `Feeder`; set before anything is fed.
    """

    def __init__(self, client: dict[str, Any], topology: Topology, stream: Stream, writes: Writes) -> None:
        from confluent_kafka import Consumer

        from streamml.adapters.kafka.client import opened

        own = {"group.id": "chaos-judge", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        own |= {"isolation.level": "read_committed", "enable.partition.eof": True, "fetch.queue.backoff.ms": 10}
        self._consumer: Any = opened(Consumer, {**client, **own})
        self._stream, self._writes = stream, writes
        self._input, self._output = topology.source.topics[0], topology.sink.topic
        self._referee = Referee(self._is_right)
        self._spoilt: dict[int, list[list[float]]] = {}
        self._lock = threading.Lock()
        self._new: list[tuple[str, int]] = []
        self._ends: dict[tuple[str, int], int] = {}
        self._next: dict[tuple[str, int], int] = {}
        self._ended = threading.Event()
        self.sent_at: npt.NDArray[np.float64] = np.zeros(0)
        self.dropped = 0
        self.read = 0
        self.produced_at: list[float] = []
        self.first_at: list[float] = []
        self.duplicate_at: list[float] = []
        self.letter_at: list[float] = []
        self.moved_at = time.monotonic()
        self.thread = threading.Thread(target=self._watch, name="chaos-judge")

    def follow(self, topic: str, partitions: Sequence[int]) -> None:
        """Read these partitions too, from their beginning."""
        with self._lock:
            self._new += [(topic, number) for number in partitions]

    def spoil(self, accounts: Sequence[int]) -> None:
        """From now on these accounts' features are not to be had."""
        with self._lock:
            for account in accounts:
                self._spoilt.setdefault(account, []).append([time.time(), _FOREVER])

    def mend(self, accounts: Sequence[int]) -> None:
        """These accounts' features are there again."""
        with self._lock:
            for account in accounts:
                self._spoilt[account][-1][1] = time.time()

    def may_lose(self, accounts: npt.NDArray[np.bool_]) -> None:
        """The master that has these accounts' fast features dies now."""
        with self._lock:
            self._writes.may_lose(accounts, time.time_ns() // 1000)

    @property
    def open(self) -> int:
        """Records that have not ended yet."""
        with self._lock:
            return self._referee.open

    def verdict(self) -> Verdict:
        with self._lock:
            return self._referee.verdict()

    @property
    def remarks(self) -> list[str]:
        """The first of what was wrong, lost, or out of order."""
        with self._lock:
            return self._referee.remarks()

    def at_end(self, ends: dict[tuple[str, int], int]) -> bool:
        """Whether everything below these offsets has been read."""
        return all(self._ends.get(place, -1) >= end for place, end in ends.items())

    def stop(self) -> None:
        self._ended.set()
        self.thread.join()
        self._consumer.close()

    def _watch(self) -> None:
        from confluent_kafka import TopicPartition

        while not self._ended.is_set():
            with self._lock:
                new, self._new = self._new, []
            if new:
                self._consumer.incremental_assign([TopicPartition(*place, 0) for place in new])
            first = self._consumer.poll(0.05)
            if first is not None:
                self._take([first, *self._consumer.consume(2000, 0)])

    def _take(self, messages: list[Any]) -> None:
        predictions = []
        with self._lock:
            for message in messages:
                where = (message.topic(), message.partition())
                if message.error() is not None:
                    if message.error().name() == "_PARTITION_EOF":
                        self._ends[where] = message.offset()
                    continue
                if message.offset() < self._next.get(where, 0):
                    raise AssertionError(f"The judge was given {where} at {message.offset()} twice.")
                self._next[where] = message.offset() + 1
                if where[0] == self._input:
                    self._take_input(message)
                elif where[0] == self._output:
                    predictions.append(message)
                else:
                    self._referee.dead_lettered(message.key().decode())
                    self.letter_at.append(time.monotonic())
                self.moved_at = time.monotonic()
            self._writes.catch_up()
            self._take_predictions(predictions)

    def _take_input(self, message: Any) -> None:
        mark = dict(message.headers())[NUMBER].decode()
        self.read += 1
        self.produced_at.append(time.monotonic())
        if mark in DROPPED:
            self.dropped += 1
        else:
            place = Place(message.partition(), message.offset())
            self._referee.produced(place, int(mark) if mark.isdigit() else None)

    def _take_predictions(self, messages: list[Any]) -> None:
        made = [read_header(dict(message.headers())[HEADER]) for message in messages]
        values = [
            {
                **json.loads(message.value()),
                "fates": fates_of(one.flags),
                "stamp": message.timestamp()[1],
                "arrived": time.time(),
            }
            for one, message in zip(made, messages, strict=True)
        ]
        for one, message, value, right in zip(made, messages, values, self._right(values), strict=True):
            value["right"] = right
            first = self._referee.predicted(one.id, message.partition(), value)
            (self.first_at if first else self.duplicate_at).append(time.monotonic())

    def _right(self, values: list[Any]) -> list[float]:
        """The score of the event that each says it is about, with the features that it says it had."""
        if not values:
            return []
        numbers = np.array([int(value["event_id"].removeprefix("event-")) for value in values])
        loaded = np.array([not value["fates"]["account"] for value in values])
        return list(map(float, self._stream.scores(numbers, loaded, np.array([value["tick"] for value in values]))))

    def _is_right(self, number: int, value: Any) -> bool:
        """Whether it is about its event, the score is that of the features that it claims, and each claim can be true."""
        same = value["event_id"] == f"event-{number:09d}" and abs(value["score"] - value["right"]) < TOLERANCE
        return same and self._may_have_had(number, value)

    def _may_have_had(self, number: int, value: Any) -> bool:
        account, sent, arrived = int(self._stream.accounts[number]), float(self.sent_at[number]), value["arrived"]
        fates = value["fates"]
        slow = fates["account"] == "" or (fates["account"] == "missing" and self._was_spoilt(account, sent, arrived))
        in_us = value["stamp"] * 1000, int(sent * 1e6), int(arrived * 1e6)
        return slow and self._writes.explain(Use(account, fates["recent"], value["tick"], *in_us))

    def _was_spoilt(self, account: int, since: float, until: float) -> bool:
        return any(begin <= until and since <= end for begin, end in self._spoilt.get(account, []))
