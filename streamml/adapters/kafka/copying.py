"""Copies records into a topic, and keeps how far it came as positions of a group that has no members."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from streamml.adapters.kafka.client import error_of, opened
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.adapters.kafka.positions import marked
from streamml.adapters.kafka.sink import DEFAULTS
from streamml.errors import FatalError, Fenced, SinkUnavailable, StreamMLError
from streamml.ports.sink import OutboundRecords
from streamml.ports.source import Positions

_CALL_S: Final = 5.0
_PATIENCE_S: Final = 60.0
_AGAIN: Final = "Do it again; it goes on where it was."
_SAFETY: Final[Mapping[str, object]] = {
    "enable.idempotence": True,
    "acks": "all",
    "message.timeout.ms": int(_PATIENCE_S * 1000),
}
_FENCED: Final = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
Confirm = Callable[[], bool]


class KafkaCopy:
    """Writes blocks of records, each together with positions.

    Exactly once: a block and its positions are one transaction, and opening a copy ends whatever an earlier one of the same
    group has left, so that of two at the same time only the later goes on. Otherwise positions follow their block: after a
    kill the last block may be written again.
    """

    def __init__(self, client: Mapping[str, Any], group: str, mark: str, *, exactly_once: bool) -> None:
        """
        Args:
            client: librdkafka properties of a producer.
            group: has the positions; also ``transactional.id``.
            mark: kept with each position.
        """
        self._client = dict(client)
        self._group = group
        self._mark = mark
        self._exactly_once = exactly_once
        own = {"transactional.id": group} if exactly_once else {}
        self._producer: Any = opened(Producer, {**DEFAULTS, **client, **_SAFETY, **own})
        self._member: Any = None
        self._failed: list[KafkaError] = []

    def open(self) -> None:
        """Connect. Positions that are asked for behind this are the last.

        Raises:
            SinkUnavailable: the broker does not answer.
            FatalError: it refuses this client.
        """
        if self._exactly_once:
            # A transaction that another has left may take its coordinator a moment to end.
            self._until(self._producer.init_transactions)
            outside = {"bootstrap.servers": self._client["bootstrap.servers"], "group.id": self._group}
            consumer: Any = opened(Consumer, {**self._kafka(), **outside})
            self._member = consumer.consumer_group_metadata()
            consumer.close()

    def _kafka(self) -> dict[str, Any]:
        """Of the properties those that any client takes."""
        return {
            name: one
            for name, one in self._client.items()
            if name.split(".")[0] in ("security", "sasl", "ssl", "client")
        }

    def write(self, block: OutboundRecords, positions: Positions, confirm: Confirm | None = None) -> bool:
        """Write a block and positions; returns whether it counts. Comes back when the broker has both.

        Args:
            confirm: asked when all records are written; with exactly once, whether they may count at all.

        Raises:
            SinkUnavailable: the broker does not answer.
            Fenced: another copy of the same group has begun.
            FatalError: the broker refuses a record, or this client.
        """
        try:
            if not self._exactly_once:
                self._produce(block)
                self._commit(positions)
                return True
            return self._in_transaction(block, positions, confirm)
        except (KafkaException, SystemError) as error:
            raise self._translated(self._cause(error)) from error

    def _in_transaction(self, block: OutboundRecords, positions: Positions, confirm: Confirm | None) -> bool:
        self._producer.begin_transaction()
        try:
            self._produce(block)
            if confirm is not None and not confirm():
                self._until(self._producer.abort_transaction)
                return False
            marks = marked(positions, {where.topic: self._mark for where in positions})
            self._until(lambda timeout_s: self._producer.send_offsets_to_transaction(marks, self._member, timeout_s))
            self._until(self._producer.commit_transaction)
        except (KafkaException, SystemError) as error:
            cause = self._cause(error)
            if not cause.fatal():
                self._until(self._producer.abort_transaction)
            raise KafkaException(cause) from error
        except StreamMLError as error:
            if not isinstance(error, Fenced):
                self._until(self._producer.abort_transaction)
            raise
        return True

    def _produce(self, block: OutboundRecords) -> None:
        rows = zip(block.keys, block.values, block.headers, block.timestamps, strict=True)
        for key, value, headers, timestamp in rows:
            self._queue(block.topic, key, value, headers, timestamp)
        left = self._producer.flush(_PATIENCE_S + _CALL_S)
        if left and not self._failed:
            raise SinkUnavailable(f"The broker has not taken {left} records for {block.topic}. {_AGAIN}")
        if self._failed:
            error = self._failed[0]
            self._failed.clear()
            if error.code() in (
                KafkaError.MSG_SIZE_TOO_LARGE,
                KafkaError.INVALID_TIMESTAMP,
                KafkaError.POLICY_VIOLATION,
            ):
                raise FatalError(
                    f"{block.topic} refuses a prediction: {error.str()}. See to its max.message.bytes and "
                    "message.timestamp.before.max.ms, then publish again; it goes on with this one."
                )
            raise KafkaException(error)

    def _queue(self, topic: str, key: bytes | None, value: bytes | None, headers: Any, timestamp: int) -> None:
        while True:
            try:
                self._producer.produce(
                    topic, value, key, timestamp=timestamp, headers=headers, on_delivery=self._delivered
                )
                return
            except BufferError:
                self._producer.poll(0.1)

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failed.append(error)

    def _commit(self, positions: Positions) -> None:
        if positions:
            KafkaOffsets(self._client).commit(self._group, positions, {where.topic: self._mark for where in positions})

    def _until(self, call: Callable[[float], Any]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                call(_CALL_S)
                return
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise self._translated(error.args[0]) from error

    def _cause(self, error: Exception) -> KafkaError:
        """What the client has to say: where it calls back with reports while it fails, Python wraps its error, or the client loses it."""
        found = error.__cause__ if isinstance(error, SystemError) else error
        if found is None and self._exactly_once:
            try:
                self._producer.begin_transaction()
            except KafkaException as told_again:
                found = told_again
        if not isinstance(found, KafkaException):
            raise error
        reason: KafkaError = found.args[0]
        return reason

    def _translated(self, error: KafkaError) -> Exception:
        if error.code() in _FENCED or (error.code() == KafkaError._FATAL and "fenced" in error.str()):
            return Fenced(
                f"Another process has begun to write for {self._group}, and goes on with it; this one has ended."
            )
        if error.retriable() or error.code() in (KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT):
            return SinkUnavailable(f"The broker did not take what was written: {error.str()}. {_AGAIN}")
        return error_of(error)
