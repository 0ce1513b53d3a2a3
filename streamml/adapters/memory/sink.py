"""A sink on a broker in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from streamml.adapters.memory.broker import MemoryBroker
from streamml.errors import SinkUnavailable
from streamml.ports.sink import Delivered, OutboundRecords, Refusal, TransactionEnded
from streamml.ports.source import RawRecord


class MemorySink:
    """Writes records; see `streamml.ports.sink.Sink` for the contract. While the broker does not answer, they wait."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._waiting: deque[tuple[int, tuple[OutboundRecords, ...]]] = deque()

    def open(self) -> None:
        """See `Sink.open`."""
        if self._broker.down is not None:
            raise SinkUnavailable(self._broker.down)

    def send(self, token: int, blocks: Sequence[OutboundRecords]) -> None:
        """See `Sink.send`."""
        self._waiting.append((token, tuple(blocks)))

    def completions(self) -> Sequence[Delivered | TransactionEnded]:
        """See `Sink.completions`."""
        ended: list[Delivered] = []
        with self._broker.lock():
            while self._waiting and self._broker.down is None:
                ended.append(self._write(*self._waiting.popleft()))
        return ended

    def trouble(self) -> str | None:
        """See `Sink.trouble`."""
        return self._broker.down if self._waiting else None

    def close(self, timeout_s: float) -> int:
        """See `Sink.close`."""
        self._broker.wait_for(lambda: not self._waiting or self._broker.down is None, timeout_s)
        self.completions()
        return sum(len(block) for _, blocks in self._waiting for block in blocks)

    def _take(self, topic: str, record: RawRecord) -> None:
        self._broker.store(topic, record)

    def _write(self, token: int, blocks: Sequence[OutboundRecords]) -> Delivered:
        refusals: list[Refusal] = []
        for number, block in enumerate(blocks):
            rows = zip(block.keys, block.values, block.headers, block.timestamps, strict=True)
            for index, (key, value, headers, timestamp) in enumerate(rows):
                record = RawRecord(key, value, headers, timestamp)
                reason = self._broker.refusal_of(block.topic, record)
                if reason is None:
                    self._take(block.topic, record)
                else:
                    refusals.append(Refusal(number, index, reason))
        return Delivered(token, tuple(refusals))
