"""A group's positions, committed with what they are positions in, and what may be wrong with them (promise D7)."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import TopicPartition as ClientPartition

from streamml.errors import FatalError, OffsetOutOfRange
from streamml.ports.source import Positions, TopicPartition

_SHOW = "`streamml offsets show TOPOLOGY` lists the positions of all partitions."


def marked(positions: Positions, topic_ids: Mapping[str, str]) -> list[ClientPartition]:
    """Positions as the client takes them, each with the id of its topic."""
    return [
        ClientPartition(where.topic, where.partition, to, topic_ids.get(where.topic, ""))
        for where, to in positions.items()
    ]


def recreated(topic: str, group: str) -> FatalError:
    """The error of positions that are of an earlier topic of the same name."""
    return FatalError(
        f"Topic {topic} was deleted and made again: the offsets of group {group} are those of the earlier topic. Stop the "
        f"group's workers; `streamml offsets reset TOPOLOGY --to earliest` begins with the new topic's first record, `--to "
        f"latest` behind its last. {_SHOW}"
    )


def out_of_range(where: TopicPartition, position: int, low: int, high: int, group: str) -> OffsetOutOfRange:
    """The error of a position that the broker does not have.

    Args:
        low, high: first offset of the partition, and the next one to be written.
    """
    reset = f"`streamml offsets reset TOPOLOGY --partition {where.topic}/{where.partition} --to"
    if position < low:
        happened = (
            f"Group {group} is at offset {position} of {where}, and the first one there is {low}: retention removed up to "
            f"{low - position} records that were not scored. Stop the group's workers; {reset} earliest` goes on with what is "
            "left, `--to latest` with what comes."
        )
    else:
        happened = (
            f"Group {group} is at offset {position} of {where}, and the partition ends at {high}: its end was lost, as after "
            f"an unclean election, and what is written there now would be taken as scored. Stop the group's workers; {reset} "
            "latest` goes on with what comes, `--to earliest` scores again what is there."
        )
    return OffsetOutOfRange(f"{happened} {_SHOW}")


def added(where: TopicPartition, group: str) -> FatalError:
    """The error of a partition that came after the group began, where that is not to be taken silently."""
    return FatalError(
        f'{where} was added after group {group} began, and Source(partitions_added=) is "stop": keys lie in other partitions '
        "from here on, so the order of a key's records may not hold across the change. When the other partitions are "
        "caught up, stop the group's workers and take it in by `streamml offsets reset TOPOLOGY --partition "
        f"{where.topic}/{where.partition} --to earliest`; then start again."
    )
