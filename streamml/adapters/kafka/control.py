"""A group's state in a topic of its own: compacted, one partition, the latest record counts (docs/pausing.md)."""

from __future__ import annotations

import json
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as ClientPartition

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.append import append
from streamml.adapters.kafka.client import OUT_OF_RANGE, OUTSIDE_OF_GROUPS, error_of, opened, passes, translated
from streamml.adapters.kafka.membership import anonymous
from streamml.adapters.kafka.tail import read_topic
from streamml.engine.retry import Backoff
from streamml.errors import FatalError, SourceUnavailable, StreamMLError
from streamml.ports.control import RUNNING, GroupState, Storm

_LOG: Final = logging.getLogger("streamml.control")
_KEY: Final = b"state"
_VERSION: Final = 1
_TURN_S: Final = 0.1
CHECK_S: Final = 5.0
_CLOSE_S: Final = 2.0
# The client looks for the coordinator of the group that it has to name, and that nothing is asked of.
_NO_MATTER: Final = (KafkaError._PARTITION_EOF, KafkaError.GROUP_AUTHORIZATION_FAILED)
_MADE_ANEW: Final = "The broker does not have what comes next; the topic may have been made anew."
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
        FatalError: the broker refuses the login, this client may not write to the topic, or it is gone.
    """
    document = {"version": _VERSION, "state": "paused" if state.paused else "running", **asdict(state)}
    del document["paused"]
    return append(client, topic, _KEY, json.dumps(document).encode())


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
        self._failed: Callable[[FatalError], None] = lambda error: None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble: str | None = None
        self._admin: KafkaAdmin | None = None
        self._topic_id: str | None = None
        # Offset of what this worker said last: what stands before it in the topic was said before.
        self._own = -1

    def open(self, changed: Callable[[GroupState], None], failed: Callable[[FatalError], None]) -> GroupState:
        """See `Control.open`."""
        self._admin = KafkaAdmin(self._writing)
        self._topic_id = self._admin.topic_id(self._topic)
        kept = read_state(self._reading, self._topic)
        self._changed, self._failed = changed, failed
        self._thread = threading.Thread(target=self._follow, args=(kept.end,), name="streamml-control", daemon=True)
        self._thread.start()
        return kept.state

    def record(self, state: GroupState) -> None:
        """See `Control.record`."""
        self._asked.put(state)

    def trouble(self) -> str | None:
        """See `Control.trouble`."""
        return self._trouble

    def close(self) -> None:
        """See `Control.close`. What was asked for and is not written yet is tried once more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=_CLOSE_S)

    # -- on the control's thread

    def _follow(self, start: int) -> None:
        attempt = 0
        while True:
            try:
                if attempt:
                    start = self._read_again()
                attempt, self._trouble = 0, None
                self._listen(start)
                return
            except StreamMLError as error:
                attempt += 1
                self._trouble = f"{self._topic} cannot be read, so this worker hears of no pause: {error}"
                _LOG.warning("Try %d: %s", attempt, self._trouble)
            if self._ended.wait(_delay(attempt)):
                return
            self._write_asked()

    def _read_again(self) -> int:
        """What was said meanwhile; a topic that was made anew and says nothing ends no pause."""
        assert self._admin is not None
        self._topic_id = self._admin.topic_id(self._topic)
        kept = read_state(self._reading, self._topic)
        if kept.end <= self._own:
            self._own = -1
        if kept.end:
            self._hear(kept.state, kept.end - 1)
        return kept.end

    def _listen(self, start: int) -> None:
        """Hear of what is written, until the end.

        Raises:
            StreamMLError: the topic cannot be read on.
        """
        # What it begins with is gone when the topic was made anew, which must not go unheard.
        own = {**OUTSIDE_OF_GROUPS, **_FETCH, "auto.offset.reset": "error", "allow.auto.create.topics": False}
        consumer: Any = opened(Consumer, {**self._reading, **own})
        try:
            with translated():
                consumer.assign([ClientPartition(self._topic, 0, start)])
            check_at = time.monotonic() + CHECK_S
            while not self._ended.is_set():
                self._write_asked()
                with translated():
                    message = consumer.poll(_TURN_S)
                self._look_at(message)
                if time.monotonic() > check_at:
                    self._check()
                    check_at = time.monotonic() + CHECK_S
            self._write_asked()
        finally:
            consumer.close()

    def _check(self) -> None:
        """A consumer is not told that its topic is gone, or hidden from it, or another one of the same name.

        Raises:
            SourceUnavailable: so it is.
        """
        assert self._admin is not None
        try:
            found = self._admin.topic_id(self._topic)
        except SourceUnavailable:
            return  # The worker hears from its source of a broker that is away.
        if found is None:
            raise SourceUnavailable(
                "There is no such topic, or this client may not see it; `streamml topics create` makes it, `streamml acls` "
                "prints the rights."
            )
        if found != self._topic_id:
            raise SourceUnavailable(_MADE_ANEW)

    def _look_at(self, message: Any) -> None:
        if message is None:
            return
        error = message.error()
        if error is None:
            state = _state_of(message.value())
            if state is not None:
                self._hear(state, message.offset())
        elif error.code() not in _NO_MATTER and not passes(error):
            raise SourceUnavailable(_MADE_ANEW) if error.code() in OUT_OF_RANGE else error_of(error)

    def _hear(self, state: GroupState, offset: int) -> None:
        """What came while this worker had something to say was said before."""
        if offset >= self._own and self._asked.empty():
            self._changed(state)

    def _write_asked(self) -> None:
        while not self._asked.empty():
            self._write(self._asked.get())

    def _write(self, state: GroupState) -> None:
        attempt = 0
        while True:
            try:
                self._own = write_state(self._writing, self._topic, state)
                self._trouble = None
                return
            except FatalError as error:
                self._failed(FatalError(f"{state.reason}, and the group cannot be told: {error}"))
                return
            except StreamMLError as error:
                attempt += 1
                self._trouble = f"the group has not been told yet: {error}"
                _LOG.warning("This worker is paused, and try %d to tell its group failed: %s", attempt, error)
            if self._ended.wait(_delay(attempt)):
                return


def _delay(attempt: int) -> float:
    return Backoff().delay(attempt, random.random())  # noqa: S311  jitter needs no secrecy
