"""A source that reads given stretches of partitions, beside whoever reads them live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from streamml.adapters.kafka.membership import DEFAULTS, SAFETY
from streamml.adapters.kafka.reading import TIMEOUT_S, Reading
from streamml.engine.stretches import Bounds, Stretches
from streamml.errors import FatalError, OffsetOutOfRange
from streamml.ports.source import Positions, RecordRun, SourceListener, TopicPartition


class RangeSource:
    """Reads stretches to their ends; see `streamml.ports.source.Source` for the contract.

    Nobody shares its partitions out: it takes them itself, and they stay. Its group has no members, only positions, so that
    whoever comes next with the same group goes on behind what was committed.
    """

    def __init__(
        self,
        stretches: Bounds,
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
        self._bounds = dict(stretches)
        own = {name: value for name, value in client.items() if name != "group.protocol"}
        config = {**DEFAULTS, **own, **SAFETY, "group.id": group}
        self._reading = Reading(config, topic_ids, keys=keys, headers=headers, at_end=self._shorter, gone=self._removed)
        self._reading.has_met()
        self._consumer = self._reading.consumer
        # Asked for before anything is polled: another thread's call would wait behind a poll.
        self._member: Any = self._consumer.consumer_group_metadata()
        self._listener: SourceListener | None = None
        self._stretches: Stretches | None = None
        self._told = False

    def open(self, listener: SourceListener) -> None:
        """See `Source.open`. What an earlier run of the group has committed is not read again."""
        self._stretches = Stretches(self._bounds, self.committed())
        starts = self._stretches.starts
        with self._reading.asking:
            self._consumer.assign([ClientPartition(*where, starts[where]) for where in self._stretches.open])
        self._listener = listener

    def poll(self, max_rows: int, timeout_s: float) -> list[RecordRun]:
        """See `Source.poll`."""
        assert self._stretches is not None
        self._tell(self._stretches)
        runs = [self._stretches.within(run) for run in self._reading.poll(max_rows, timeout_s)]
        return [run for run in runs if len(run)]

    def member(self) -> Any:
        """Nobody in particular of the group, as the client knows it, for a sink that writes in transactions."""
        return self._member

    def commit(self, positions: Positions, *, wait: bool) -> None:
        """See `Source.commit`."""
        self._reading.commit(positions, wait=wait)

    def ends(self) -> dict[TopicPartition, int]:
        """See `Source.ends`; here the ends of stretches."""
        ended = {} if self._stretches is None else self._stretches.ended()
        if ended:
            with self._reading.asking:
                # The client would read on to the end of the topic.
                self._consumer.pause([ClientPartition(*where) for where in ended])
        return ended

    def failed_commits(self) -> list[TopicPartition]:
        """See `Source.failed_commits`."""
        return self._reading.failed_commits()

    def pause(self) -> None:
        """See `Source.pause`."""
        with self._reading.asking:
            self._consumer.pause(self._assigned())

    def resume(self) -> None:
        """See `Source.resume`."""
        with self._reading.asking:
            self._consumer.resume(self._assigned())

    def committed(self) -> dict[TopicPartition, int]:
        """See `Source.committed`."""
        return self._reading.committed([ClientPartition(*where) for where in self._bounds])

    def watermarks(self) -> dict[TopicPartition, tuple[int, int]]:
        """See `Source.watermarks`; here the stretches."""
        return dict(self._bounds)

    def trouble(self) -> str | None:
        """See `Source.trouble`; of a broker that is away, the one who asks for the run's progress hears."""
        return None

    def joined(self) -> bool:
        """See `Source.joined`."""
        return self._stretches is not None

    def lag(self) -> int:
        """See `Source.lag`; a replay is behind on purpose."""
        return 0

    def close(self) -> None:
        """See `Source.close`."""
        try:
            if self._told and self._listener is not None:
                self.commit(self._listener.revoking(list(self._bounds)), wait=True)
        finally:
            with self._reading.asking:
                self._consumer.close()

    def _tell(self, stretches: Stretches) -> None:
        """The listener hears of partitions once, those included that an earlier run has finished."""
        if not self._told and self._listener is not None:
            self._told = True
            self._listener.assigned(stretches.starts)

    def _assigned(self) -> list[ClientPartition]:
        return [] if self._stretches is None else [ClientPartition(*where) for where in self._stretches.open]

    def _shorter(self, where: TopicPartition, offset: int) -> FatalError | None:
        """The error of a partition that ends before its stretch; none where it is only the leader that does not know yet."""
        assert self._stretches is not None
        if self._stretches.reached(where, offset):
            return None
        end = self._bounds[where][1]
        try:
            if self._consumer.get_watermark_offsets(ClientPartition(*where), timeout=TIMEOUT_S)[1] >= end:
                return None
        except KafkaException:
            return None
        return FatalError(
            f"{where} ends at offset {offset} now, before the end of the replay's range, {end}: records were lost, or the topic "
            "was made anew. Start a replay of what is there."
        )

    def _removed(self, where: TopicPartition, offset: int) -> OffsetOutOfRange:
        return OffsetOutOfRange(
            f"Retention has removed what the replay was to read next: {where} from offset {offset}. What was scored before it is "
            "committed; start a replay of what is left."
        )
