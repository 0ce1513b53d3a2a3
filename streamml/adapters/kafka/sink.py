"""A sink on a Kafka-compatible broker: an idempotent producer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from streamml.adapters.kafka.client import opened
from streamml.errors import FatalError, SinkUnavailable
from streamml.ports.sink import Delivered, OutboundRecords, Refusal

SAFETY: Final[Mapping[str, object]] = {"enable.idempotence": True, "acks": "all", "message.timeout.ms": 0}
"""What the promises rest on: no duplicate by retry, no acknowledgement before replicas have it, no giving up."""

DEFAULTS: Final[Mapping[str, object]] = {
    "compression.type": "lz4",
    "linger.ms": 2,
    # As Java's producer, so that joins in other frameworks find equal keys in equal partitions.
    "partitioner": "murmur2_random",
    "queue.buffering.max.messages": 1_000_000,
    "message.max.bytes": 16_777_216,
}


class KafkaSink:
    """Writes records; see `streamml.ports.sink.Sink` for the contract."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        """
        Args:
            client: librdkafka properties, ``bootstrap.servers`` at least.
        """
        self._producer: Any = opened(Producer, {**DEFAULTS, **client, **SAFETY})
        self._ended: list[Delivered] = []
        self._fatal: KafkaError | None = None

    def open(self) -> None:
        """See `Sink.open`."""
        try:
            self._producer.list_topics(timeout=10.0)
        except KafkaException as error:
            raise SinkUnavailable(f"The broker does not answer: {error.args[0].str()}.") from error

    def send(self, token: int, blocks: Sequence[OutboundRecords]) -> None:
        """See `Sink.send`."""
        produce = self._producer.produce
        batch = _Batch(token, blocks, self._ended.append)
        # One callback for all: a closure per record costs more than producing it, most of it in the garbage collector.
        ended = batch.ended
        for block in blocks:
            rows = zip(
                repeat(block.topic),
                block.values,
                block.keys,
                repeat(-1),
                repeat(ended),
                repeat(None),
                block.timestamps,
                block.headers,
            )
            for row in rows:
                try:
                    produce(*row)
                except BufferError:
                    self._wait_and_produce(row)
                except KafkaException as error:
                    batch.not_taken(error.args[0], row)

    def _wait_and_produce(self, row: tuple[Any, ...]) -> None:
        while True:
            self._producer.poll(0.1)
            try:
                self._producer.produce(*row)
            except BufferError:
                continue
            return

    def completions(self) -> list[Delivered]:
        """See `Sink.completions`."""
        self._producer.poll(0)
        ended, self._ended[:] = list(self._ended), []
        return ended

    def close(self, timeout_s: float) -> int:
        """See `Sink.close`."""
        return int(self._producer.flush(timeout_s))


class _Batch:
    """Counts the acknowledgements of one `KafkaSink.send`."""

    def __init__(self, token: int, blocks: Sequence[OutboundRecords], report: Callable[[Delivered], None]) -> None:
        self._token = token
        self._blocks = blocks
        self._left = sum(map(len, blocks))
        self._report = report
        self._refusals: list[Refusal] = []

    def ended(self, error: KafkaError | None, message: Any) -> None:
        """One record was acknowledged, or will never be. Called by the client once per record."""
        if error is not None:
            self._refuse(error, message.topic(), message.value(), message.key(), message.headers() or [])
        self._left -= 1
        if not self._left:
            self._report(Delivered(self._token, tuple(self._refusals)))

    def not_taken(self, error: KafkaError, row: tuple[Any, ...]) -> None:
        """The client did not even queue the record."""
        self._refuse(error, row[0], row[1], row[2], row[7])
        self.ended(None, None)

    def _refuse(self, error: KafkaError, topic: str, *record: Any) -> None:
        if error.fatal():
            raise FatalError(f"The producer cannot go on: {error.str()}.")
        known = {(refusal.block, refusal.index) for refusal in self._refusals}
        for number, block in enumerate(self._blocks):
            rows = zip(block.values, block.keys, block.headers, strict=True) if block.topic == topic else ()
            for index, row in enumerate(rows):
                if (*row,) == record and (number, index) not in known:
                    self._refusals.append(Refusal(number, index, error.str()))
                    return
        raise FatalError(f"The producer reports a record that was never sent to {topic}: {error.str()}.")
