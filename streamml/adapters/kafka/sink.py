"""A sink on a Kafka-compatible broker: an idempotent producer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

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
        batch = _Batch(token, sum(map(len, blocks)), self._ended.append)
        for number, block in enumerate(blocks):
            topic = block.topic
            rows = zip(block.values, block.keys, cast(Sequence[Any], block.headers), block.timestamps, strict=True)
            for index, (value, key, headers, timestamp) in enumerate(rows):
                try:
                    produce(topic, value, key, -1, batch.acknowledged(number, index), None, timestamp, headers)
                except BufferError:
                    self._wait_and_produce(topic, value, key, batch.acknowledged(number, index), timestamp, headers)
                except KafkaException as error:
                    batch.ended(error.args[0], number, index)
        self._producer.poll(0)

    def _wait_and_produce(self, topic, value, key, callback, timestamp, headers) -> None:  # type: ignore[no-untyped-def]
        while True:
            self._producer.poll(0.1)
            try:
                self._producer.produce(topic, value, key, -1, callback, None, timestamp, headers)
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


_Acknowledge = Callable[[KafkaError | None, object], None]


class _Batch:
    """Counts the acknowledgements of one `KafkaSink.send`."""

    def __init__(self, token: int, count: int, report: Callable[[Delivered], None]) -> None:
        self._token = token
        self._left = count
        self._report = report
        self._refusals: list[Refusal] = []

    def acknowledged(self, block: int, index: int) -> _Acknowledge:
        def callback(error: KafkaError | None, message: object) -> None:
            self.ended(error, block, index)

        return callback

    def ended(self, error: KafkaError | None, block: int, index: int) -> None:
        """One record was acknowledged, or will never be."""
        if error is not None:
            if error.fatal():
                raise FatalError(f"The producer cannot go on: {error.str()}.")
            self._refusals.append(Refusal(block, index, error.str()))
        self._left -= 1
        if not self._left:
            self._report(Delivered(self._token, tuple(self._refusals)))
