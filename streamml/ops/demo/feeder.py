"""Writes the events of the demo at a steady rate, and poison among them on request."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from streamml.ops.referee import Place

_TURN_S: Final = 0.01
_POISON_SHARE: Final = 0.01

OnProduced = Callable[[Place, int | None], None]


class Feeder:
    """A thread that produces.

    Args:
        brokers: ``host:port`` of the broker.
        topic: where events go.
        keys, values: the events, in order.
        rate: events per second.
        poison: makes a record that is no event out of one that is.
        beside: topic, key and value of other records, by the number of the event that they go out before.
        on_produced: hears where each record is once the broker has it, and which event it is; ``None`` for poison.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        keys: Sequence[bytes],
        values: Sequence[bytes],
        *,
        rate: float,
        poison: Callable[[bytes, random.Random], bytes],
        on_produced: OnProduced,
        beside: Mapping[int, Sequence[tuple[str, bytes, bytes]]] | None = None,
    ) -> None:
        from confluent_kafka import Producer

        from streamml.adapters.kafka.client import opened

        own = {"linger.ms": 2, "compression.type": "lz4", "enable.idempotence": True}
        self._producer: Any = opened(Producer, {"bootstrap.servers": brokers, **own})
        self._topic = topic
        self._keys, self._values = keys, values
        self._rate = rate
        self._make_poison = poison
        self._on_produced = on_produced
        self._beside = beside or {}
        self._dice = random.Random(2013)  # noqa: S311  a demo is to be repeatable
        self._ended = threading.Event()
        self.poisoning = False
        self.sent = 0
        self.thread = threading.Thread(target=self._feed, name="streamml-demo-feeder", daemon=True)

    @property
    def total(self) -> int:
        """How many events there are."""
        return len(self._values)

    def stop(self) -> None:
        self._ended.set()
        self.thread.join()

    def _feed(self) -> None:
        begun = time.monotonic()
        while self.sent < len(self._values) and not self._ended.is_set():
            due = min(len(self._values), int((time.monotonic() - begun) * self._rate) + 1)
            for event in range(self.sent, due):
                for topic, key, value in self._beside.get(event, ()):
                    self._send(topic, key, value, lambda error, message: None)
                self._produce(self._keys[event], self._values[event], event)
                if self.poisoning and self._dice.random() < _POISON_SHARE:
                    self._produce(self._keys[event], self._make_poison(self._values[event], self._dice), None)
            self.sent = due
            self._producer.poll(0)
            self._ended.wait(_TURN_S)
        self._producer.flush(30)

    def _produce(self, key: bytes, value: bytes, event: int | None) -> None:
        def acknowledged(error: Any, message: Any) -> None:
            if error is None:
                self._on_produced(Place(message.partition(), message.offset()), event)

        self._send(self._topic, key, value, acknowledged)

    def _send(self, topic: str, key: bytes, value: bytes, acknowledged: Callable[[Any, Any], None]) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=acknowledged)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return
