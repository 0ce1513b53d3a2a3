"""One process at a time holds a name, and hears of what is said to it; the broker sees to both."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import OFFSET_END, Consumer

from streamml.adapters.kafka.client import opened, passes, translated
from streamml.adapters.kafka.membership import member_properties
from streamml.errors import StreamMLError

_LOG: Final = logging.getLogger("streamml.kafka")
SESSION_S: Final = 6.0
"""The broker gives a holder that died up after so long: the shortest that brokers allow unless told otherwise."""
_TURN_S: Final = 0.2
_CLOSE_S: Final = 10.0


class KafkaHolder:
    """Holds a name as the one member of a group that was given the one partition of a topic.

    Whoever dies loses it when its session ends; nobody's clock decides. The topic's new records are told to the holder.
    """

    def __init__(
        self, client: Mapping[str, Any], topic: str, name: str, who: str, heard: Callable[[bytes | None], None]
    ) -> None:
        """
        Args:
            client: librdkafka properties of a consumer, ``bootstrap.servers`` at least.
            topic: has one partition.
            name: what is held; the group's.
            who: holds it, for people.
            heard: gets the value of each new record, on another thread.
        """
        own = {
            **member_properties({**client, "group.protocol": "classic"}, name),
            "session.timeout.ms": int(SESSION_S * 1000),
            "heartbeat.interval.ms": int(SESSION_S * 333),
            "client.id": who,
        }
        self._consumer: Any = opened(Consumer, own)
        self._topic = topic
        self._heard = heard
        self._held = threading.Event()
        self._since = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="streamml-holder", daemon=True)

    def hold(self, timeout_s: float) -> bool:
        """Begin; whether the name was free, or became so in time."""
        self._thread.start()
        return self._held.wait(timeout_s)

    def lost_for(self) -> float:
        """Seconds since it is not held, as far as the broker was heard; 0 while it is. Any thread may ask."""
        return 0.0 if self._held.is_set() else time.monotonic() - self._since

    def release(self) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)

    def _listen(self) -> None:
        with translated():
            self._consumer.subscribe(
                [self._topic], on_assign=self._on_assign, on_revoke=self._on_gone, on_lost=self._on_gone
            )
        while not self._ended.is_set():
            try:
                self._turn()
            except StreamMLError as error:
                _LOG.warning("Listening to %s: %s", self._topic, error)
                self._ended.wait(_TURN_S)
        self._consumer.close()

    def _turn(self) -> None:
        with translated():
            message = self._consumer.poll(_TURN_S)
        if message is None:
            return
        error = message.error()
        if error is None:
            self._heard(message.value())
        elif not passes(error):
            _LOG.debug("Listening to %s: %s", self._topic, error)

    def _on_assign(self, consumer: Any, partitions: list[Any]) -> None:
        for one in partitions:
            one.offset = OFFSET_END
        consumer.incremental_assign(partitions)
        if partitions:
            self._held.set()

    def _on_gone(self, consumer: Any, partitions: list[Any]) -> None:
        self._since = time.monotonic()
        self._held.clear()
        consumer.incremental_unassign(partitions)
