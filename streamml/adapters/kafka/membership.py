"""librdkafka properties of a member of a consumer group, by either protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

SAFETY: Final[Mapping[str, object]] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    # The end of a partition may lie past its last record, behind transactions' markers that nobody is shown.
    "enable.partition.eof": True,
}
"""What the promises rest on; settings may not change these."""

DEFAULTS: Final[Mapping[str, object]] = {
    # With librdkafka's 1000 ms a full prefetch queue puts the client to sleep for a second.
    "fetch.queue.backoff.ms": 10,
    "queued.max.messages.kbytes": 32_768,
    # Partitions that are added are found by a refresh; librdkafka's 5 minutes are long for a topic that was too slow.
    "topic.metadata.refresh.interval.ms": 10_000,
}
SESSION_MS: Final = 10_000
"""Time after which the partitions of a dead worker move, unless settings or, with the new protocol, the broker say otherwise."""

_CLASSIC: Final[Mapping[str, object]] = {"session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": 3_000}
_CLASSIC_SAFETY: Final[Mapping[str, object]] = {"partition.assignment.strategy": "cooperative-sticky"}


def member_properties(client: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Properties of a member of ``group``.

    Args:
        client: librdkafka properties, ``bootstrap.servers`` at least; with ``group.protocol`` = ``consumer`` (KIP-848) the
            broker shares the partitions, one by one in any case, and decides about sessions.
    """
    if client.get("group.protocol") == "consumer":
        return {**DEFAULTS, **client, **SAFETY, "group.id": group}
    return {**DEFAULTS, **_CLASSIC, **client, **SAFETY, **_CLASSIC_SAFETY, "group.id": group}


def anonymous(member: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a client that is of the group and nobody in particular: one that shared an identity would fence its owner."""
    return {name: value for name, value in member.items() if name != "group.instance.id"}
