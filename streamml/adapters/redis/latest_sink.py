"""Sinks of records that keep the latest predictions in Redis, beside a topic or instead of one: what they report is in all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, Protocol

from streamml.adapters.redis.latest import entries, latest_prefix
from streamml.errors import FeatureStoreDown, SinkUnavailable
from streamml.ports.sink import Delivered, OutboundRecords, Sink, TransactionalSink, TransactionEnded
from streamml.ports.source import Positions

_COMMIT_WAIT_S: Final = 2.0


class Keeper(Protocol):
    """What keeps predictions by token: `LatestWriter` in Redis, `MemoryLatest` in tests."""

    def ping(self) -> None: ...
    def put(self, token: int, keys: list[bytes], values: list[bytes]) -> None: ...
    def done(self) -> list[int]: ...
    def forget(self) -> None: ...
    def wait(self, timeout_s: float) -> int: ...
    @property
    def trouble(self) -> str | None: ...
    def close(self, timeout_s: float) -> int: ...


class SinkAndLatest:
    """The port `Sink`: `Delivered` when the other sink has ended all records and Redis has their predictions.

    A prediction that the broker refuses for good, and that becomes a dead letter, may be in Redis. What is sent again after
    a crash is put over itself.
    """

    def __init__(self, sink: Sink, latest: Keeper, topic: str, name: str) -> None:
        """
        Args:
            topic: what blocks of predictions say; other records are the other sink's alone.
            name: of the latest predictions in Redis.
        """
        self._sink = sink
        self._latest = latest
        self._topic = topic
        self._prefix = latest_prefix(name)
        # Tokens that Redis has not stored yet, and what the other sink has reported of them meanwhile.
        self._storing: dict[int, Delivered | None] = {}

    def open(self) -> None:
        """See `Sink.open`."""
        try:
            self._latest.ping()
        except FeatureStoreDown as error:
            raise SinkUnavailable(str(error)) from None
        self._sink.open()

    def send(self, token: int, blocks: Sequence[OutboundRecords]) -> None:
        """See `Sink.send`."""
        keys, values = self._entries(blocks)
        if keys:
            self._storing[token] = None
            self._latest.put(token, keys, values)
        self._sink.send(token, blocks)

    def completions(self) -> Sequence[Delivered | TransactionEnded]:
        """See `Sink.completions`."""
        ready: list[Delivered | TransactionEnded] = [*self._stored()]
        for ended in self._sink.completions():
            if isinstance(ended, Delivered) and ended.token in self._storing:
                self._storing[ended.token] = ended
            else:
                ready.append(ended)
        return ready

    def trouble(self) -> str | None:
        """See `Sink.trouble`."""
        return self._sink.trouble() or self._latest.trouble

    def close(self, timeout_s: float) -> int:
        """See `Sink.close`."""
        until = time.monotonic() + timeout_s
        left = self._sink.close(timeout_s)
        return left + self._latest.close(max(0.0, until - time.monotonic()))

    def _entries(self, blocks: Sequence[OutboundRecords]) -> tuple[list[bytes], list[bytes]]:
        keys: list[bytes] = []
        values: list[bytes] = []
        for block in blocks:
            if block.topic == self._topic:
                found = entries(block, self._prefix)
                keys += found[0]
                values += found[1]
        return keys, values

    def _stored(self) -> list[Delivered]:
        ended = [self._storing.pop(token, None) for token in self._latest.done()]
        return [one for one in ended if one is not None]


class LatestOnly(SinkAndLatest):
    """The same where Redis alone has the predictions: the other sink gets dead letters and the feature log."""

    def send(self, token: int, blocks: Sequence[OutboundRecords]) -> None:
        """See `Sink.send`."""
        keys, values = self._entries(blocks)
        # Refusals name blocks by their number, so those of predictions stay there, empty.
        others = [_emptied(block) if block.topic == self._topic else block for block in blocks]
        sent = any(map(len, others))
        self._storing[token] = None if sent else Delivered(token)
        self._latest.put(token, keys, values)
        if sent:
            self._sink.send(token, others)


def _emptied(block: OutboundRecords) -> OutboundRecords:
    return OutboundRecords(block.topic, [], [], [], [])


class TransactionsAndLatest(SinkAndLatest):
    """The same in transactions: one is committed when Redis has all of its predictions, and taken back if Redis is away.

    Exactly once is what readers of the topic see. Redis may show a prediction before its transaction is committed, or one
    of a transaction that was taken back, whose event is then scored again, under the same id.
    """

    def __init__(self, sink: TransactionalSink, latest: Keeper, topic: str, name: str) -> None:
        super().__init__(sink, latest, topic, name)
        self._transactions = sink

    def commit(self, positions: Positions) -> None:
        """See `TransactionalSink.commit`. Waits for Redis: a commit that came later might be of a lost partition."""
        if self._latest.wait(_COMMIT_WAIT_S):
            self.abort()
        else:
            self._transactions.commit(positions)

    def abort(self) -> None:
        """See `TransactionalSink.abort`."""
        self._latest.forget()
        self._storing.clear()
        self._transactions.abort()
