"""A source that reads given stretches of partitions, beside whoever reads them live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition

from streamml.adapters.kafka.client import OUT_OF_RANGE, error_of, opened, passes, translated
from streamml.adapters.kafka.membership import DEFAULTS, SAFETY
from streamml.adapters.kafka.messages import runs_of
from streamml.adapters.kafka.positions import marked
from streamml.errors import FatalError, OffsetOutOfRange, StreamMLError
from streamml.ports.source import Positions, RecordRun, SourceListener, TopicPartition

_TIMEOUT_S: Final = 10.0
Stretches = Mapping[TopicPartition, tuple[int, int]]
"""First offset, and the one behind the last, by partition."""


class RangeSource:
    """Reads stretches to their ends; see `streamml.ports.source.Source` for the contract.

    Nobody shares its partitions out: it takes them itself, and they stay. Its group has no members, only positions, so that
    whoever comes next with the same group goes on behind what was committed.

    A stretch has ended when its last offset was delivered, when a record behind it came, or when the partition has: where
    compaction or markers of transactions have left nothing at its end, no record says so.
    """

    def __init__(
        self,
        stretches: Stretches,
        group: str,
        client: Mapping[str, Any],
        topic_ids: Mapping[str, str],
        *,
        keys: bool = True,
        headers: bool = False,
    ) -> None:
        """
        Args:
            group: of this run alone.
            client: librdkafka properties of a consumer, ``bootstrap.servers`` at least.
            topic_ids: of the topics, committed with the positions.
            keys, headers: whether runs carry these columns.
        """
        self._stretches = dict(stretches)
        self._topic_ids = topic_ids
        self._keys = keys
        self._headers = headers
        self._brokers = str(client.get("bootstrap.servers"))
        self._asking = translated(self._brokers, met=True)
        own = {name: value for name, value in client.items() if name != "group.protocol"}
        config = {**DEFAULTS, **own, **SAFETY, "group.id": group, "on_commit": self._committed_async}
        self._consumer: Any = opened(Consumer, config)
        # Asked for before anything is polled: another thread's call would wait behind a poll.
        self._member: Any = self._consumer.consumer_group_metadata()
        self._listener: SourceListener | None = None
        self._starts: Positions | None = None
        # Stretches that have not ended, by their ends.
        self._open: dict[TopicPartition, int] = {}
        self._ended: dict[TopicPartition, int] = {}
        self._told = False
        self._failed_commits: list[TopicPartition] = []
        # Comes with the next poll: the client counts the records that came with it as delivered.
        self._error: StreamMLError | None = None

    def open(self, listener: SourceListener) -> None:
        """See `Source.open`. What an earlier run of the group has committed is not read again."""
        done = self.committed()
        self._starts = {
            where: min(max(start, done.get(where, start)), end) for where, (start, end) in self._stretches.items()
        }
        self._open = {where: end for where, (_, end) in self._stretches.items() if self._starts[where] < end}
        with self._asking:
            self._consumer.assign([ClientPartition(*where, self._starts[where]) for where in self._open])
        self._listener = listener

    def poll(self, max_rows: int, timeout_s: float) -> list[RecordRun]:
        """See `Source.poll`."""
        self._tell()
        self._raise_error()
        with self._asking:
            first = self._consumer.poll(timeout_s)
            if first is None:
                return []
        messages = self._good([first, *self._at_hand(max_rows - 1)])
        runs = [self._within(run) for run in runs_of(messages, keys=self._keys, headers=self._headers)]
        return [run for run in runs if len(run)]

    def member(self) -> Any:
        """Nobody in particular of the group, as the client knows it, for a sink that writes in transactions."""
        return self._member

    def commit(self, positions: Positions, *, wait: bool) -> None:
        """See `Source.commit`."""
        if not positions:
            return
        with self._asking:
            answer = self._consumer.commit(offsets=marked(positions, self._topic_ids), asynchronous=not wait)
        for one in answer or ():
            if one.error is not None:
                raise error_of(one.error, self._brokers, met=True)

    def ends(self) -> dict[TopicPartition, int]:
        """See `Source.ends`; here the ends of stretches."""
        ended, self._ended = self._ended, {}
        return ended

    def failed_commits(self) -> list[TopicPartition]:
        """See `Source.failed_commits`."""
        failed, self._failed_commits = self._failed_commits, []
        return failed

    def pause(self) -> None:
        """See `Source.pause`."""
        with self._asking:
            self._consumer.pause(self._assigned())

    def resume(self) -> None:
        """See `Source.resume`."""
        with self._asking:
            self._consumer.resume(self._assigned())

    def committed(self) -> dict[TopicPartition, int]:
        """See `Source.committed`."""
        with self._asking:
            found = self._consumer.committed([ClientPartition(*where) for where in self._stretches], timeout=_TIMEOUT_S)
        return {TopicPartition(one.topic, one.partition): one.offset for one in found if one.offset >= 0}

    def watermarks(self) -> dict[TopicPartition, tuple[int, int]]:
        """See `Source.watermarks`; here the stretches."""
        return dict(self._stretches)

    def trouble(self) -> str | None:
        """See `Source.trouble`; of a broker that is away, the one who asks for the run's progress hears."""
        return None

    def joined(self) -> bool:
        """See `Source.joined`."""
        return self._starts is not None

    def lag(self) -> int:
        """See `Source.lag`; a replay is behind on purpose."""
        return 0

    def close(self) -> None:
        """See `Source.close`."""
        try:
            if self._told and self._listener is not None and self._starts is not None:
                self.commit(self._listener.revoking(list(self._starts)), wait=True)
        finally:
            with self._asking:
                self._consumer.close()

    def _tell(self) -> None:
        """The listener hears of partitions once, those included that an earlier run has finished."""
        if self._told or self._listener is None or self._starts is None:
            return
        self._told = True
        self._listener.assigned(self._starts)

    def _assigned(self) -> list[ClientPartition]:
        return [ClientPartition(*where) for where in self._open]

    def _at_hand(self, max_rows: int) -> list[Any]:
        """What the client has fetched already. An error of it comes with the next poll: this one has a record to give."""
        if max_rows < 1:
            return []
        try:
            found: list[Any] = self._consumer.consume(max_rows, 0)
        except KafkaException as error:
            self._error = error_of(error.args[0], self._brokers, met=True)
            return []
        return found

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _good(self, messages: list[Any]) -> list[Any]:
        """The records among what the client gave; notes the first error, and ends of partitions."""
        errors = list(map(Message.error, messages))
        if not any(errors):
            return messages
        records: list[Message] = []
        for error, message in zip(errors, messages, strict=True):
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._reached_end(TopicPartition(message.topic(), message.partition()), message.offset())
            elif self._error is None and not passes(error):
                self._error = self._error_of(error, message)
        return records

    def _within(self, run: RecordRun) -> RecordRun:
        """What of a run is in its stretch; a record at or behind the last offset ends that."""
        end = self._stretches[run.partition][1]
        if run.offsets[-1] + 1 < end:
            return run
        self._end(run.partition)
        return _first(run, int(np.searchsorted(run.offsets, end)))

    def _reached_end(self, where: TopicPartition, offset: int) -> None:
        end = self._open.get(where)
        if end is None:
            return
        if offset >= end:
            self._end(where)
        elif self._log_end(where) < end and self._error is None:
            self._error = FatalError(
                f"{where} ends at offset {offset} now, before the end of the replay's range, {end}: records were lost, or the "
                "topic was made anew. Start a replay of what is there."
            )

    def _log_end(self, where: TopicPartition) -> int:
        try:
            return int(self._consumer.get_watermark_offsets(ClientPartition(*where), timeout=_TIMEOUT_S)[1])
        except KafkaException:
            return self._stretches[where][1]

    def _end(self, where: TopicPartition) -> None:
        if self._open.pop(where, None) is None:
            return
        self._ended[where] = self._stretches[where][1]
        with self._asking:
            # The client would read on to the end of the topic.
            self._consumer.pause([ClientPartition(*where)])

    def _committed_async(self, error: KafkaError | None, partitions: list[ClientPartition]) -> None:
        self._failed_commits += [
            TopicPartition(one.topic, one.partition) for one in partitions if error is not None or one.error is not None
        ]

    def _error_of(self, error: KafkaError, message: Any) -> StreamMLError:
        if error.code() not in OUT_OF_RANGE:
            return error_of(error, self._brokers, met=True)
        where = TopicPartition(message.topic(), message.partition())
        return OffsetOutOfRange(
            f"Retention has removed what the replay was to read next: {where} from offset {message.offset()}. What was scored "
            "before it is committed; start a replay of what is left."
        )


def _first(run: RecordRun, count: int) -> RecordRun:
    """The first ``count`` records."""
    if count == len(run):
        return run
    values = run.values[:count]
    keys = None if run.keys is None else run.keys[:count]
    return replace(
        run,
        offsets=run.offsets[:count],
        timestamps=run.timestamps[:count],
        values=values,
        keys=keys,
        headers=None if run.headers is None else run.headers[:count],
        size_bytes=sum(map(len, filter(None, values))) + sum(map(len, filter(None, () if keys is None else keys))),
    )
