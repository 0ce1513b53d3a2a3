"""A group's state in a topic of its own: compacted, one partition, the latest record counts (docs/pausing.md)."""

from __future__ import annotations

import json
import logging
import queue
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as ClientPartition

from streamml.adapters.kafka.client import Trouble, error_of, opened
from streamml.adapters.kafka.membership import anonymous
from streamml.adapters.kafka.tail import OUTSIDE_OF_GROUPS, read_topic
from streamml.engine.retry import Backoff
from streamml.errors import StreamMLError
from streamml.ports.control import RUNNING, GroupState, Storm

_LOG: Final = logging.getLogger("streamml.control")
_KEY: Final = b"state"
_VERSION: Final = 1
_TURN_S: Final = 0.1
_WRITE_S: Final = 10.0
_LISTEN_S: Final = 1.0
_CLOSE_S: Final = 2.0
# The broker answers at once when there is a record; without one, this is how often it says so.
_FETCH: Final = {"fetch.wait.max.ms": 5000, "socket.timeout.ms": 15_000}


@dataclass(frozen=True, slots=True)
class Kept:
    """A state, and the offset behind it."""

    state: GroupState = RUNNING
    end: int = 0


def read_state(client: Mapping[str, Any], topic: str) -> Kept:
    """What the group was told last.

    Args:
        client: librdkafka properties of a consumer.

    Raises:
        SourceUnavailable: the broker does not answer.
        TopologyError: there is no such topic.
        FatalError: the broker refuses the login, or this client may not read the topic.
    """
    kept = Kept()
    for one in read_topic(client, topic):
        kept = Kept(_state_of(one.record.value) or kept.state, one.offset + 1)
    return kept


def write_state(client: Mapping[str, Any], topic: str, state: GroupState) -> int:
    """Tell the group; returns the record's offset.

    Args:
        client: librdkafka properties of a producer.

    Raises:
        SourceUnavailable: the broker has not taken the record within ten seconds.
        FatalError: the broker refuses the login, or this client may not write to the topic.
    """
    trouble = Trouble()
    own = {"enable.idempotence": True, "message.timeout.ms": int(_WRITE_S * 1000)}
    producer: Any = opened(Producer, {**client, **own}, trouble)
    reports: list[tuple[KafkaError | None, int]] = []
    document = {"version": _VERSION, "state": "paused" if state.paused else "running", **asdict(state)}
    del document["paused"]
    producer.produce(
        topic,
        json.dumps(document).encode(),
        _KEY,
        partition=0,
        on_delivery=lambda error, message: reports.append((error, message.offset())),
    )
    while producer.flush(_LISTEN_S) and not reports:
        trouble.check()
    error, offset = reports[0]
    if error is not None:
        trouble.check()
        raise error_of(error, str(client.get("bootstrap.servers")))
    return offset


def _state_of(value: bytes | None) -> GroupState | None:
    """``None`` for what is no state: a tombstone, another program's record, a later version's."""
    try:
        told = json.loads(value or b"")
        if told["version"] != _VERSION:
            return None
        storm = told["storm"] and Storm(float(told["storm"]["share"]), int(told["storm"]["sample"]))
        return GroupState(
            {"paused": True, "running": False}[told["state"]],
            str(told["reason"]),
            str(told["by"]),
            int(told["time_ms"]),
            storm or None,
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class KafkaControl:
    """See `streamml.ports.control.Control` for the contract. One thread reads and writes, so that both have one order."""

    def __init__(self, consumer: Mapping[str, Any], producer: Mapping[str, Any], topic: str) -> None:
        """
        Args:
            consumer, producer: librdkafka properties, ``bootstrap.servers`` at least.
            topic: exists, see `streamml.compose.control`.
        """
        self._reading = anonymous(consumer)
        self._writing = dict(producer)
        self._topic = topic
        self._asked: queue.SimpleQueue[GroupState] = queue.SimpleQueue()
        self._changed: Callable[[GroupState], None] = lambda state: None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        # Offset of what this worker said last: what stands before it in the topic was said before.
        self._own = -1

    def open(self, changed: Callable[[GroupState], None]) -> GroupState:
        """See `Control.open`."""
        kept = read_state(self._reading, self._topic)
        self._changed = changed
        self._thread = threading.Thread(target=self._follow, args=(kept.end,), name="streamml-control", daemon=True)
        self._thread.start()
        return kept.state

    def record(self, state: GroupState) -> None:
        """See `Control.record`."""
        self._asked.put(state)

    def close(self) -> None:
        """See `Control.close`. What was asked for and is not written yet is tried once more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=_CLOSE_S)

    def _follow(self, start: int) -> None:
        consumer: Any = opened(Consumer, {**self._reading, **OUTSIDE_OF_GROUPS, **_FETCH})
        consumer.assign([ClientPartition(self._topic, 0, start)])
        try:
            while not self._ended.is_set():
                self._write_asked()
                self._read(consumer)
            self._write_asked()
        finally:
            consumer.close()

    def _read(self, consumer: Any) -> None:
        try:
            message = consumer.poll(_TURN_S)
        except KafkaException as error:
            _LOG.debug("Reading %s: %s", self._topic, error)
            return
        if message is None:
            return
        if message.error() is not None:
            # The client goes on by itself; the worker hears of a broker that is away from its source.
            _LOG.debug("Reading %s: %s", self._topic, message.error().str())
            return
        state = _state_of(message.value())
        # What came while this worker had something to say was said before.
        if state is not None and message.offset() >= self._own and self._asked.empty():
            self._changed(state)

    def _write_asked(self) -> None:
        while not self._asked.empty():
            self._write(self._asked.get())

    def _write(self, state: GroupState) -> None:
        attempt = 0
        while True:
            try:
                self._own = write_state(self._writing, self._topic, state)
                return
            except StreamMLError as error:
                attempt += 1
                _LOG.warning(
                    "Try %d to tell the group that it is paused; this worker is in any case: %s", attempt, error
                )
            if self._ended.wait(Backoff().delay(attempt, random.random())):  # noqa: S311  jitter needs no secrecy
                return
