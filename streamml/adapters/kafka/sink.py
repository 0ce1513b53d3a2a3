"""A sink on a Kafka-compatible broker: an idempotent producer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from streamml.adapters.kafka.client import opened, translated
from streamml.errors import FatalError, SinkUnavailable
from streamml.ports.sink import Delivered, OutboundRecords, Refusal, TransactionEnded

SAFETY: Final[Mapping[str, object]] = {"enable.idempotence": True, "acks": "all", "message.timeout.ms": 0}
"""What the promises rest on: no duplicate by retry, no acknowledgement before replicas have it, no giving up."""

DEFAULTS: Final[Mapping[str, object]] = {
    "compression.type": "lz4",
    # Batches are handed over whole, and what waits for more of them is late; less makes requests of a few records in a backlog.
    "linger.ms": 1,
    # As Java's producer, so that joins in other frameworks find equal keys in equal partitions.
    "partitioner": "murmur2_random",
    "queue.buffering.max.messages": 1_000_000,
    # The client counts before it compresses, the broker after: what came in compressed must get out as a dead letter.
    "message.max.bytes": 1_000_000_000,
}

_REFUSALS: Final = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.POLICY_VIOLATION,
)
"""What the broker has against one record; everything else it has against this client, or the topic."""

_TAKEN_BACK: Final = (
    KafkaError._PURGE_QUEUE,
    KafkaError._PURGE_INFLIGHT,
    KafkaError._FATAL,
    KafkaError._FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError._STATE,
)
"""What reports say of records whose transaction is over, or whose producer is."""

LONG_S: Final = 10.0

_Alike = tuple[str, bytes | None, bytes | None]
"""Topic, key and value of a record."""

_Row = tuple[Any, ...]
"""What the client's `produce` takes."""


class KafkaSink:
    """Writes records; see `streamml.ports.sink.Sink` for the contract."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        """
        Args:
            client: librdkafka properties, ``bootstrap.servers`` at least.
        """
        self._client = dict(client)
        self._producer: Any = self._opened()
        self._ended: list[Delivered] = []
        self._unended: dict[int, _Batch] = {}
        # Acknowledgements are heard of when somebody asks; who is busy with something else must not take that for silence.
        self._asked_at = time.monotonic()
        self._waiting: deque[tuple[_Batch, Iterator[_Row]]] = deque()

    def _opened(self) -> Any:
        return opened(Producer, {**DEFAULTS, **self._client, **SAFETY})

    def open(self) -> None:
        """See `Sink.open`."""
        try:
            self._producer.list_topics(timeout=10.0)
        except KafkaException as error:
            raise SinkUnavailable(f"The broker does not answer: {error.args[0].str()}.") from error

    def send(self, token: int, blocks: Sequence[OutboundRecords]) -> None:
        """See `Sink.send`."""
        batch = self._unended[token] = _Batch(token, blocks, self._report, self._taken_back, self._sends_again)
        self._waiting += [(batch, batch.rows(block)) for block in blocks]
        self._produce()

    def _produce(self) -> None:
        """Hand over what the client's queue has room for; the rest waits, in order, for the next call."""
        produce = self._producer.produce
        while self._waiting:
            batch, rows = self._waiting[0]
            for row in rows:
                try:
                    produce(*row)
                except BufferError:
                    self._waiting[0] = (batch, chain([row], rows))
                    return
                except KafkaException as error:
                    batch.not_taken(error.args[0], row)
            self._waiting.popleft()

    def completions(self) -> Sequence[Delivered | TransactionEnded]:
        """See `Sink.completions`."""
        # The client raises here what it cannot go on from, even with a callback for errors.
        with translated():
            self._producer.poll(0)
        self._produce()
        ended, self._ended[:] = list(self._ended), []
        self._asked_at = time.monotonic()
        return ended

    def trouble(self) -> str | None:
        """See `Sink.trouble`."""
        oldest = next(iter(list(self._unended.values())), None)
        seconds = 0.0 if oldest is None else self._asked_at - oldest.sent_at
        if oldest is None or seconds < LONG_S:
            return None
        return f"the broker has not acknowledged records for {named(oldest.topics)} that were sent {seconds:.0f} s ago"

    def _report(self, ended: Delivered) -> None:
        self._unended.pop(ended.token, None)
        self._ended.append(ended)

    def _sends_again(self, batch: _Batch, rows: Sequence[_Row]) -> bool:
        """Rows that were not written as others were refused go out now, behind what was sent meanwhile."""
        self._waiting.append((batch, iter(rows)))
        return True

    def _taken_back(self, error: KafkaError, topic: str) -> None:
        """A record will not be written, and there is no transaction to be sent anew."""
        raise FatalError(
            f"The producer has failed, records for {topic} were not written: {error.str()}. Nothing is lost."
        )

    def close(self, timeout_s: float) -> int:
        """See `Sink.close`."""
        deadline = time.monotonic() + timeout_s
        while self._waiting and time.monotonic() < deadline:
            self._producer.poll(0.05)
            self._produce()
        left = int(self._producer.flush(max(0.0, deadline - time.monotonic())))
        waiting = [(batch, list(rows)) for batch, rows in self._waiting]
        self._waiting = deque((batch, iter(rows)) for batch, rows in waiting)
        return left + sum(len(rows) for _, rows in waiting)


class _Batch:
    """Counts the acknowledgements of one `KafkaSink.send`."""

    def __init__(
        self,
        token: int,
        blocks: Sequence[OutboundRecords],
        report: Callable[[Delivered], None],
        taken_back: Callable[[KafkaError, str], None],
        sends_again: Callable[[_Batch, Sequence[_Row]], bool],
    ) -> None:
        self._token = token
        self._blocks = blocks
        self.left = sum(map(len, blocks))
        self.sent_at = time.monotonic()
        self._report = report
        self._taken_back = taken_back
        self._sends_again = sends_again
        self._refused: list[tuple[_Alike, str]] = []
        self._beside: set[_Alike] = set()

    @property
    def topics(self) -> set[str]:
        return {block.topic for block in self._blocks}

    def rows(self, block: OutboundRecords) -> Iterator[_Row]:
        """Its records for the client."""
        columns = block.values, block.keys, repeat(-1)
        # One callback for all: a closure per record costs more than producing it, most of it in the garbage collector.
        return zip(repeat(block.topic), *columns, repeat(self.ended), repeat(None), block.timestamps, block.headers)

    def ended(self, error: KafkaError | None, message: Any) -> None:
        """One record was acknowledged, or will never be. Called by the client once per record."""
        if error is not None:
            self._refuse(error, (message.topic(), message.key(), message.value()))
        self.left -= 1
        if self.left:
            return
        again = self._again()
        if again and self._sends_again(self, again):
            self.left = len(again)
        else:
            self._report(Delivered(self._token, tuple(self._refusals())))

    def not_taken(self, error: KafkaError, row: _Row) -> None:
        """The client did not even queue the record."""
        self._refuse(error, _alike(row))
        self.ended(None, None)

    def _again(self) -> list[_Row]:
        """Rows that the broker did not take as it refused others of the same request; what looks like a refused one counts as refused."""
        beside, self._beside = self._beside - {record for record, _ in self._refused}, set()
        if not beside:
            return []
        rows = (row for block in self._blocks for row in self.rows(block))
        return [row for row in rows if _alike(row) in beside]

    def _refuse(self, error: KafkaError, record: _Alike) -> None:
        if error.code() == KafkaError._INVALID_DIFFERENT_RECORD:
            self._beside.add(record)
            return
        if error.code() in _TAKEN_BACK:
            self._taken_back(error, record[0])
            return
        if error.code() not in _REFUSALS:
            raise FatalError(
                f"The broker takes no records for {record[0]}: {error.str()}. See to the topic and to this client's rights, "
                "then start again; nothing is lost."
            )
        self._refused.append((record, error.str()))

    def _refusals(self) -> list[Refusal]:
        """Places of what was refused.

        The client's reports do not say which record they are about, nor its headers. Records alike in topic, key and
        value cannot be told apart, so all of them count as refused when one is: none that was refused goes unseen.
        """
        if not self._refused:
            return []
        reasons = dict(self._refused)
        found = [
            Refusal(number, index, reasons[block.topic, *record])
            for number, block in enumerate(self._blocks)
            for index, record in enumerate(zip(block.keys, block.values, strict=True))
            if (block.topic, *record) in reasons
        ]
        if len(found) < len(self._refused):
            raise FatalError(f"The producer refused a record that was never sent: {self._refused[0][1]}.")
        return found


def _alike(row: _Row) -> _Alike:
    topic, value, key, *_ = row
    return topic, key, value


def named(topics: set[str]) -> str:
    return " and ".join(map(repr, sorted(topics)))
