"""What each peer, and the hand-written loop, does with events, without this project's code: features by redis-py, the network by ONNX Runtime, JSON by msgspec.

A peer's script is started as ``python -m loadtests.peers.with_NAME BROKERS REDIS_URL IN OUT`` by the interpreter of its own
environment, reads IN from the beginning and works until SIGTERM.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import onnxruntime
import redis

MODEL: Final = Path(__file__).parents[1] / "baseline" / "models" / "mlp" / "1" / "model.onnx"
FIELDS: Final = ("amount", "merchant", "hour", "weekday", "balance", "days_since_opened")
STORED: Final = 16
BATCH: Final = 2048
CONSUMER: Final = {"fetch.queue.backoff.ms": 10, "queued.max.messages.kbytes": 32_768}
"""librdkafka properties, as the worker's own."""
PRODUCER: Final = {"compression.type": "lz4", "linger.ms": 2, "acks": "all", "queue.buffering.max.messages": 1_000_000}
_HEADER_BYTES: Final = 24
_VALUE_BYTES: Final = _HEADER_BYTES + 4 * STORED
_ABSENT: Final = bytes(_VALUE_BYTES)


class Event(msgspec.Struct, gc=False):
    """The event of the job."""

    event_id: str
    account: int
    amount: float
    merchant: int
    country: str
    hour: int
    weekday: int
    channel: str
    balance: float
    days_since_opened: int


class Prediction(msgspec.Struct, gc=False):
    """Its prediction."""

    event_id: str
    score: float


decode = msgspec.json.Decoder(Event).decode
encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Place:
    """Where to work, from the command line."""

    brokers: str
    redis_url: str
    topic_in: str
    topic_out: str
    group: str = field(default_factory=lambda: f"peer-{uuid.uuid4().hex}")


def place() -> Place:
    """What the command line says."""
    return Place(*sys.argv[1:5])


class Scorer:
    """Features and model."""

    def __init__(self, redis_url: str) -> None:
        # redis-py's types know no client that always answers with bytes, as this one does.
        store: Any = redis.Redis.from_url(redis_url)
        self._redis = store
        version = msgspec.json.decode(store.get("streamml:{account}:current"))["version"]
        self._prefix = f"streamml:account:{version}:".encode()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(MODEL), options)
        self._read = [attrgetter(name) for name in FIELDS]

    def predictions(self, values: Sequence[bytes]) -> list[Prediction]:
        """One for each event, which is JSON."""
        events = [decode(value) for value in values]
        scores = self.scores([event.account for event in events], [map(read, events) for read in self._read])
        return [Prediction(event.event_id, score) for event, score in zip(events, scores, strict=True)]

    def prediction(self, event: Event) -> Prediction:
        """The one of one event."""
        x = np.empty((1, len(FIELDS) + STORED), np.float32)
        x[0, : len(FIELDS)] = [read(event) for read in self._read]
        value = self._redis.get(self._key(event.account)) or _ABSENT
        x[0, len(FIELDS) :] = np.frombuffer(value, np.float32, offset=_HEADER_BYTES)
        return Prediction(event.event_id, self._session.run(["score"], {"x": x})[0].item())

    def scores(self, accounts: Sequence[int], columns: Sequence[Any]) -> list[float]:
        """One per event.

        Args:
            accounts: of each event.
            columns: the values of each of `FIELDS`.
        """
        x = np.empty((len(accounts), len(FIELDS) + STORED), np.float32)
        for number, column in enumerate(columns):
            x[:, number] = np.fromiter(column, np.float32, len(accounts))
        x[:, len(FIELDS) :] = self._stored(accounts)
        scores: list[float] = self._session.run(["score"], {"x": x})[0][:, 0].tolist()
        return scores

    def _stored(self, accounts: Sequence[int]) -> Any:
        """Features ``[n, 16]``; each account is asked for once."""
        row_of = {one: number for number, one in enumerate(dict.fromkeys(accounts))}
        values = [value or _ABSENT for value in self._redis.mget([self._key(one) for one in row_of])]
        rows = np.frombuffer(b"".join(values), np.float32).reshape(len(values), _VALUE_BYTES // 4)
        return rows[np.fromiter(map(row_of.__getitem__, accounts), np.int64, len(accounts)), _HEADER_BYTES // 4 :]

    def _key(self, account: int) -> bytes:
        return b"%b%d:%d" % (self._prefix, len(str(account)), account)
