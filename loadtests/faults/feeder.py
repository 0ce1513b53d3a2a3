"""Writes events at a steady rate whatever happens behind it, and records among them that are none."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any

import numpy as np

from loadtests.faults.stream import BAD_ROWS, POISON, Stream

NUMBER = "number"
"""Header of a record: the event's number, or the kind of poison."""
_SHARE = 0.01
_TURN_S = 0.01


class Feeder:
    """A thread that produces.

    Attributes:
        kinds: of records that are no good events; each comes with one event in a hundred.
        sent: records given to the client.
        sent_at: by event, when that was, in seconds of the right clock.
        ahead_s: by how much the producer's clock is wrong.
    """

    def __init__(self, client: dict[str, Any], topic: str, stream: Stream, rate: float, seed: int) -> None:
        from confluent_kafka import Producer

        from streamml.adapters.kafka.client import opened

        own = {"linger.ms": 2, "enable.idempotence": True, "message.timeout.ms": 0}
        self._producer: Any = opened(Producer, {**client, **own})
        self._topic, self._stream, self._rate = topic, stream, rate
        self._dice = random.Random(f"{seed}:feeder")
        self.kinds: tuple[str, ...] = ()
        self.sent = 0
        self.sent_at = np.zeros(len(stream))
        self.ahead_s = 0
        self.thread = threading.Thread(target=self._feed, name="chaos-feeder", daemon=True)

    def _feed(self) -> None:
        begun, done = time.monotonic(), 0
        while done < len(self._stream):
            due = min(len(self._stream), int((time.monotonic() - begun) * self._rate) + 1)
            for number in range(done, due):
                self.sent_at[number] = time.time()
                self._produce(number, str(number), self._stream.values[number])
                if self._dice.random() < _SHARE * len(self.kinds):
                    self._spoil(number)
            done = due
            self._producer.poll(_TURN_S)

    def flush(self, patience_s: float) -> int:
        """Wait until the broker has everything; how many records it has not."""
        left: int = self._producer.flush(patience_s)
        return left

    def _spoil(self, number: int) -> None:
        kind = self._dice.choice(self.kinds)
        event = json.loads(self._stream.values[number])
        self._produce(number, kind, {**POISON, **BAD_ROWS}[kind](event))

    def _produce(self, number: int, mark: str, value: bytes | None) -> None:
        key, headers = self._stream.keys[number], [(NUMBER, mark.encode())]
        stamp = int((time.time() + self.ahead_s) * 1000)
        while True:
            try:
                self._producer.produce(self._topic, value, key, timestamp=stamp, headers=headers)
            except BufferError:
                self._producer.poll(0.1)
            else:
                self.sent += 1
                return
