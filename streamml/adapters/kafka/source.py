"""A source on a Kafka-compatible broker: one member of a consumer group."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from streamml.adapters.kafka.bounds import bounds_of
from streamml.adapters.kafka.client import opened
from streamml.adapters.kafka.membership import anonymous, member_properties
from streamml.adapters.kafka.positions import added, marked, out_of_range, recreated
from streamml.adapters.kafka.reading import TIMEOUT_S, Reading
from streamml.adapters.kafka.watch import GroupWatch
from streamml.errors import FatalError, SourceUnavailable, StreamMLError
from streamml.ports.source import Positions, RecordRun, SourceListener, TopicPartition

_LOG: Final = logging.getLogger("streamml.kafka")
_TRIES: Final = 3
_MEMBER_S: Final = 0.1
_LAST_LOOKS: Final = 10
_LAST_ROWS: Final = 100_000


class KafkaSource:
    """Reads topics as a group member; see `streamml.ports.source.Source` for the contract."""

    def __init__(
        self,
        topics: Sequence[str],
        group: str,
        start: Literal["earliest", "latest"],
        client: Mapping[str, Any],
        *,
        keys: bool = True,
        headers: bool = False,
        transactional: bool = False,
        topic_ids: Mapping[str, str] | None = None,
        partitions_added: Literal["read", "stop"] = "read",
    ) -> None:
        """
        Args:
            topics: read together.
            group: consumer group.
            start: where a group that never committed begins.
            client: librdkafka properties, ``bootstrap.servers`` at least.
            keys, headers: whether runs carry these columns.
            transactional: whether positions are committed in transactions, which need `member`.
            topic_ids: of the topics, to tell them from later ones of the same name; ``None``: not told.
            partitions_added: what to do with a partition that came after the group began.
        """
        self._topics = list(topics)
        self._start = start
        self._transactional = transactional
        self._group = group
        self._partitions_added = partitions_added
        self._topic_ids = dict(topic_ids or {})
        name = str(client.get("group.instance.id", ""))
        self._watch = None
        if topic_ids is not None:
            self._watch = GroupWatch(client, topics, group, self._topic_ids, name, self._read_up_to)
        self._listener: SourceListener | None = None
        self._paused = False
        self._closing = False
        self._config = member_properties(client, group)
        self._reading = Reading(
            self._config, self._topic_ids, keys=keys, headers=headers, at_end=self._note_end, gone=self._gone
        )
        self._consumer = self._reading.consumer
        # Ends of partitions as the client told them; most lie right behind the last record.
        self._reached: dict[TopicPartition, int] = {}
        # Those that lie behind what nobody is shown.
        self._hidden: dict[TopicPartition, int] = {}
        self._next: dict[TopicPartition, int] = {}
        self._assigned = False
        self._member_id = ""
        self._member: Any = None
        self._member_at = 0.0

    def open(self, listener: SourceListener) -> None:
        """See `Source.open`. A group that never ran gets its start offsets committed first (promise D1)."""
        self._listener = listener
        with self._reading.asking:
            self._commit_start()
            self._consumer.subscribe(
                self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        if self._watch is not None:
            self._watch.start()

    def poll(self, max_rows: int, timeout_s: float) -> list[RecordRun]:
        """See `Source.poll`."""
        if self._watch is not None and self._watch.problem is not None:
            raise self._watch.problem
        runs = self._reading.poll(max_rows, timeout_s)
        self._next.update({run.partition: int(run.offsets[-1]) + 1 for run in runs})
        if not self.joined():
            self._member_id = self._consumer.memberid() or ""
        self._renew_member()
        return runs

    def commit(self, positions: Positions, *, wait: bool) -> None:
        """See `Source.commit`."""
        self._reading.commit(positions, wait=wait)

    def member(self) -> Any:
        """This member in its present generation, as the client knows it, for a sink that writes in transactions."""
        return self._member

    def ends(self) -> dict[TopicPartition, int]:
        """See `Source.ends`."""
        reached, self._reached = self._reached, {}
        ends = {where: end for where, end in reached.items() if end > self._next.get(where, -1)}
        self._hidden.update(ends)
        return ends

    def failed_commits(self) -> list[TopicPartition]:
        """See `Source.failed_commits`."""
        return self._reading.failed_commits()

    def pause(self) -> None:
        """See `Source.pause`."""
        self._paused = True
        with self._reading.asking:
            self._consumer.pause(self._consumer.assignment())

    def resume(self) -> None:
        """See `Source.resume`."""
        self._paused = False
        with self._reading.asking:
            self._consumer.resume(self._consumer.assignment())

    def committed(self) -> dict[TopicPartition, int]:
        """See `Source.committed`."""
        with self._reading.asking:
            partitions = self._partitions()
        return self._reading.committed(partitions)

    def watermarks(self) -> dict[TopicPartition, tuple[int, int]]:
        """See `Source.watermarks`."""
        with self._reading.asking:
            return {
                TopicPartition(one.topic, one.partition): bounds_of(self._consumer, one, TIMEOUT_S)
                for one in self._partitions()
            }

    def joined(self) -> bool:
        """See `Source.joined`. A member without partitions is not always told by the client that it is one; the watch sees it."""
        return self._assigned or (self._watch is not None and self._member_id in self._watch.members)

    def lag(self) -> int:
        """See `Source.lag`; the watch asks every two seconds."""
        return 0 if self._watch is None else self._watch.lag

    def _read_up_to(self) -> dict[TopicPartition, int]:
        """Position in each partition of ours, ends that lie behind markers included. Called by the watch's thread."""
        return {where: max(to, self._hidden.get(where, 0)) for where, to in dict(self._next).items()}

    def trouble(self) -> str | None:
        """See `Source.trouble`; the watch finds out, within seven seconds."""
        return None if self._watch is None else self._watch.trouble

    def close(self) -> None:
        """See `Source.close`."""
        if self._watch is not None:
            self._watch.stop()
        self._hear_the_rest()
        self._closing = True
        with self._reading.asking:
            self._consumer.close()

    def _hear_the_rest(self) -> None:
        """Let go of what was fetched, and hear of partitions that came meanwhile.

        Told while it closes, the client takes the answer to that as the one to its own revoke, and never comes back from the
        revoke (observed with librdkafka 2.16; its issue 4884 is alike).
        """
        with suppress(
            KafkaException, StreamMLError
        ):  # Who leaves has nobody left to tell; what was not committed is read anew.
            for _ in range(_LAST_LOOKS):
                if self._listener is None or not self._consumer.consume(_LAST_ROWS, 0):
                    return

    def _renew_member(self, *, now: bool = False) -> None:
        """Ask the client who we are; a generation may begin without any partition coming or going."""
        if self._transactional and (now or time.monotonic() > self._member_at + _MEMBER_S):
            self._member, self._member_at = self._consumer.consumer_group_metadata(), time.monotonic()

    def _partitions(self) -> list[ClientPartition]:
        topics = self._consumer.list_topics(timeout=TIMEOUT_S).topics
        missing = [topic for topic in self._topics if topic not in topics]
        if missing:
            raise FatalError(f"The broker has no topic {', '.join(missing)}; create it, then start again.")
        return [ClientPartition(topic, number) for topic in self._topics for number in topics[topic].partitions]

    def _commit_start(self) -> None:
        if self.committed():
            return
        place = 0 if self._start == "earliest" else 1
        offsets = marked({where: marks[place] for where, marks in self.watermarks().items()}, self._topic_ids)
        # Not by the member itself: one with an identity counts as fenced, for good, when the group is active already.
        nobody: Any = opened(Consumer, anonymous(self._config))
        try:
            nobody.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # Another first member was quicker: the group is active, and has committed its start.
            if error.args[0].code() != KafkaError.UNKNOWN_MEMBER_ID:
                raise
        finally:
            nobody.close()

    def _on_assign(self, consumer: Consumer, partitions: list[ClientPartition]) -> None:
        assert self._listener is not None
        self._renew_member(now=True)
        self._reading.has_met()
        # While the client leaves, nothing answers it any more.
        found = [] if self._closing else self._starts(consumer, partitions)
        self._next.update({TopicPartition(one.topic, one.partition): one.offset for one in found})
        self._assigned = True
        self._listener.assigned({TopicPartition(one.topic, one.partition): one.offset for one in found})
        consumer.incremental_assign(found)
        if self._paused and found:
            consumer.pause(found)

    def _starts(self, consumer: Consumer, partitions: list[ClientPartition]) -> list[ClientPartition]:
        """Where each partition begins. Without an answer the worker has to stop: the client would read on unheard."""
        for _ in range(_TRIES):
            try:
                with self._reading.asking:
                    return [self._start_of(consumer, one) for one in consumer.committed(partitions, timeout=TIMEOUT_S)]
            except SourceUnavailable as error:
                reason = error
        raise FatalError(f"The group's offsets could not be read when partitions came: {reason} Nothing is lost.")

    def _start_of(self, consumer: Consumer, one: ClientPartition) -> ClientPartition:
        """A partition with its committed offset, which may be none."""
        if one.metadata and one.metadata != self._topic_ids.get(one.topic, one.metadata):
            raise recreated(one.topic, self._group)
        if one.offset != OFFSET_INVALID:
            return one
        where = TopicPartition(one.topic, one.partition)
        if self._partitions_added == "stop":
            raise added(where, self._group)
        try:
            one.offset = bounds_of(consumer, one, TIMEOUT_S)[0]
        except KafkaException as error:
            if error.args[0].code() != KafkaError._UNKNOWN_PARTITION:
                raise
            # So new that the broker, by the new protocol, gives it out before the client has heard of it. (Asking for the
            # topic here would crash the client: list_topics in a callback forgets the call that is under way.)
            one.offset = 0
        _LOG.warning(
            "%s was added after group %s began; it is read from its first record, offset %d. Keys lie in other partitions "
            "from here on, so the order of a key's records may not hold across the change.",
            *(where, self._group, one.offset),
        )
        return one

    def _on_revoke(self, consumer: Consumer, partitions: list[ClientPartition]) -> None:
        assert self._listener is not None
        self._renew_member(now=True)
        positions = self._listener.revoking([TopicPartition(one.topic, one.partition) for one in partitions])
        try:
            self.commit(positions, wait=True)
        except SourceUnavailable:
            pass  # The next owner scores these records again: at least once.
        finally:
            self._forget(partitions)
            consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[ClientPartition]) -> None:
        assert self._listener is not None
        self._assigned, self._member_id = False, ""
        self._listener.lost([TopicPartition(one.topic, one.partition) for one in partitions])
        self._forget(partitions)
        consumer.incremental_unassign(partitions)

    def _forget(self, partitions: list[ClientPartition]) -> None:
        for one in partitions:
            for known in (self._next, self._reached, self._hidden):
                known.pop(TopicPartition(one.topic, one.partition), None)

    def _note_end(self, where: TopicPartition, offset: int) -> None:
        """An end may lie behind records that nobody is shown."""
        self._reached[where] = offset

    def _gone(self, where: TopicPartition, offset: int) -> StreamMLError | None:
        try:
            low, high = self._consumer.get_watermark_offsets(ClientPartition(*where), timeout=TIMEOUT_S)
        except KafkaException:
            return None
        return out_of_range(where, offset, low, high, self._group)
