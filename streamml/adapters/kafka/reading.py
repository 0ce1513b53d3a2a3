"""What sources have in common: taking what the client has fetched, and committing positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition

from streamml.adapters.kafka.client import OUT_OF_RANGE, error_of, opened, passes, translated
from streamml.adapters.kafka.messages import runs_of
from streamml.adapters.kafka.positions import marked
from streamml.errors import StreamMLError
from streamml.ports.source import Positions, RecordRun, TopicPartition

TIMEOUT_S: Final = 10.0


class Reading:
    """A client that reads: its records as runs, its positions, and whatever goes wrong as a sentence.

    An error comes with the poll after the records that it came with: the client counts those as delivered.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topic_ids: Mapping[str, str],
        *,
        keys: bool,
        headers: bool,
        at_end: Callable[[TopicPartition, int], StreamMLError | None],
        gone: Callable[[TopicPartition, int], StreamMLError | None],
    ) -> None:
        """
        Args:
            config: librdkafka properties.
            topic_ids: of the topics, committed with the positions.
            keys, headers: whether runs carry these columns.
            at_end: hears of a partition's end and its offset, and says what is wrong with that, if anything.
            gone: what to say of an offset that the broker has no more, if more is to say than the client does.
        """
        self.brokers = str(config.get("bootstrap.servers"))
        self.asking = translated(self.brokers)
        self.consumer: Any = opened(Consumer, {**config, "on_commit": self._committed_async})
        self._topic_ids = topic_ids
        self._columns = {"keys": keys, "headers": headers}
        self._at_end = at_end
        self._gone = gone
        self._failed_commits: list[TopicPartition] = []
        self._error: StreamMLError | None = None

    def has_met(self) -> None:
        """From now on the broker is one that was there, in what errors say."""
        self.asking = translated(self.brokers, met=True)

    def poll(self, max_rows: int, timeout_s: float) -> list[RecordRun]:
        """See `Source.poll`."""
        self._raise_error()
        with self.asking:
            first = self.consumer.poll(timeout_s)
        if first is None:
            return []
        records = self._records([first, *self._at_hand(max_rows - 1)])
        if not records:
            self._raise_error()
        return runs_of(records, **self._columns)

    def commit(self, positions: Positions, *, wait: bool) -> None:
        """See `Source.commit`."""
        if not positions:
            return
        with self.asking:
            answer = self.consumer.commit(offsets=marked(positions, self._topic_ids), asynchronous=not wait)
        for one in answer or ():
            if one.error is not None:
                raise error_of(one.error, self.brokers, met=True)

    def failed_commits(self) -> list[TopicPartition]:
        """See `Source.failed_commits`."""
        failed, self._failed_commits = self._failed_commits, []
        return failed

    def committed(self, partitions: Sequence[ClientPartition]) -> dict[TopicPartition, int]:
        """The group's position in each of these partitions that has one."""
        with self.asking:
            found = self.consumer.committed(list(partitions), timeout=TIMEOUT_S)
        return {TopicPartition(one.topic, one.partition): one.offset for one in found if one.offset >= 0}

    def _at_hand(self, max_rows: int) -> list[Any]:
        """What the client has fetched already. An error of it comes with the next poll: this one has a record to give."""
        if max_rows < 1:
            return []
        try:
            found: list[Any] = self.consumer.consume(max_rows, 0)
        except KafkaException as error:
            self._error = error_of(error.args[0], self.brokers, met=True)
            return []
        return found

    def _records(self, messages: list[Any]) -> list[Any]:
        """The records among what the client gave; notes the first error, and tells of ends of partitions."""
        errors = list(map(Message.error, messages))
        if not any(errors):
            return messages
        records: list[Message] = []
        for error, message in zip(errors, messages, strict=True):
            if error is None:
                records.append(message)
            else:
                wrong = self._event(error, TopicPartition(message.topic(), message.partition()), message.offset())
                self._error = self._error or wrong
        return records

    def _event(self, error: KafkaError, where: TopicPartition, offset: int) -> StreamMLError | None:
        if error.code() == KafkaError._PARTITION_EOF:
            return self._at_end(where, offset)
        if passes(error):
            return None
        known = self._gone(where, offset) if error.code() in OUT_OF_RANGE else None
        return known or error_of(error, self.brokers, met=True)

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _committed_async(self, error: KafkaError | None, partitions: list[ClientPartition]) -> None:
        self._failed_commits += [
            TopicPartition(one.topic, one.partition) for one in partitions if error is not None or one.error is not None
        ]
