"""Looks at a worker's topics and group from outside, for what no member is told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupType,
    IsolationLevel,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from streamml.adapters.kafka.admin import id_of
from streamml.adapters.kafka.client import opened
from streamml.adapters.kafka.membership import anonymous, member_properties
from streamml.adapters.kafka.positions import recreated
from streamml.errors import StreamMLError
from streamml.ports.source import TopicPartition

_LOG: Final = logging.getLogger("streamml.kafka")
_EVERY_S: Final = 2.0
_ANSWER_S: Final = 5.0
_NUDGE_S: Final = 20.0

Places = frozenset[tuple[str, int]]


class GroupWatch:
    """A thread that looks every two seconds.

    - A topic that was deleted and made again looks to a member like the one that it knew, and positions in the old one would
      be taken for positions in the new one (promise D7).
    - A static member that is killed just after it was to give up partitions gets, when it is back, what is left to it, and
      nobody gets the others: cooperative rebalancing needs it to join a second time, which it has no reason to do
      (observed with Kafka 4.1 and librdkafka 2.16). Whoever comes first by name has the group rebalance then.
    """

    def __init__(
        self,
        client: Mapping[str, Any],
        topics: Sequence[str],
        group: str,
        topic_ids: Mapping[str, str],
        name: str,
        positions: Callable[[], Mapping[TopicPartition, int]],
    ) -> None:
        """
        Args:
            client: librdkafka properties of a consumer, ``bootstrap.servers`` at least.
            topic_ids: of the topics, as they were when the worker was made.
            name: this worker's ``group.instance.id``; empty for a dynamic member, which cannot lose partitions so.
            positions: up to where this worker has read each of its partitions.
        """
        self._client = client
        self._topics = list(topics)
        self._group = group
        self._topic_ids = topic_ids
        self._name = name
        self._positions = positions
        self._admin: Any = None
        self._orphans: Places = frozenset()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="streamml-watch", daemon=True)
        self.problem: StreamMLError | None = None
        self.trouble: str | None = None
        self.lag = 0
        self.members: frozenset[str] = frozenset()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End; a look that is under way is not waited for."""
        self._ended.set()

    def _watch(self) -> None:
        self._admin = opened(AdminClient, {"bootstrap.servers": self._client["bootstrap.servers"], **self._security()})
        while self.problem is None and not self._ended.wait(_EVERY_S):
            try:
                self._look_at_topics()
                self._look_at_lag()
                self._look_at_group()
                self.trouble = None
            except (KafkaException, StreamMLError) as error:
                # The worker itself hears of a broker that is away, and says so.
                self.trouble = f"the broker does not answer: {error}"
                _LOG.debug("Looking at group %s: %s", self._group, error)

    def _security(self) -> dict[str, Any]:
        shared = ("security.", "sasl.", "ssl.", "socket.", "client.dns", "broker.address")
        return {key: value for key, value in self._client.items() if key.startswith(shared)}

    def _look_at_topics(self) -> None:
        asked = self._admin.describe_topics(TopicCollection(self._topics), request_timeout=_ANSWER_S)
        for name, future in asked.items():
            found = id_of(future.result().topic_id)
            if found is not None and found != self._topic_ids.get(name, found):
                self.problem = recreated(name, self._group)

    def _look_at_lag(self) -> None:
        positions, latest = self._positions(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
        if not positions:
            self.lag = 0
            return
        ends = {ClientPartition(where.topic, where.partition): latest for where in positions}
        asked = self._admin.list_offsets(ends, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_ANSWER_S)
        found = {TopicPartition(one.topic, one.partition): future.result().offset for one, future in asked.items()}
        self.lag = sum(max(0, end - positions[where]) for where, end in found.items())

    def _look_at_group(self) -> None:
        described = self._admin.describe_consumer_groups([self._group], request_timeout=_ANSWER_S)[self._group].result()
        self.members = frozenset(member.member_id for member in described.members)
        if not self._name:
            return
        # By the new protocol it is the broker that shares, and leaves none out.
        if described.state != ConsumerGroupState.STABLE or described.type == ConsumerGroupType.CONSUMER:
            self._orphans = frozenset()
            return
        owned = {
            (one.topic, one.partition) for member in described.members for one in member.assignment.topic_partitions
        }
        orphans = self._partitions() - owned
        again, self._orphans = orphans & self._orphans, orphans
        first = min((member.group_instance_id or "" for member in described.members), default="")
        if again and first in ("", self._name):
            places = ", ".join(f"{topic}[{number}]" for topic, number in sorted(again))
            _LOG.warning("Nobody has %s, though group %s is stable; it is made to share anew.", places, self._group)
            self._nudge()
            self._orphans = frozenset()

    def _partitions(self) -> Places:
        known = self._admin.list_topics(timeout=_ANSWER_S).topics
        return frozenset((name, number) for name in self._topics if name in known for number in known[name].partitions)

    def _nudge(self) -> None:
        """Join as one more member and leave: both make the group share its partitions anew."""
        joined = threading.Event()
        passing = opened(Consumer, anonymous(member_properties(self._client, self._group)))

        def assigned(consumer: Any, partitions: Any) -> None:
            joined.set()
            consumer.incremental_assign([])

        passing.subscribe(self._topics, on_assign=assigned)
        deadline = time.monotonic() + _NUDGE_S
        while not joined.is_set() and not self._ended.is_set() and time.monotonic() < deadline:
            passing.poll(0.1)
        passing.close()
