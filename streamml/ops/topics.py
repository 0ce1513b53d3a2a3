"""The topics of a topology: what they should be, and making those that are missing."""

from __future__ import annotations

from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.compose.control import control_plan
from streamml.ops.replay.registry import replays_plan
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology

# An uncompressed dead letter of a compressible record must still fit (measured: 5 MB of text enters a 1 MB topic).
LETTER_BYTES = 16_777_216


def letters_plan(name: str, partitions: int = 1, replication: int = -1) -> NewTopicPlan:
    """A topic of dead letters, which are kept by id: compacted, with room for large records."""
    config = {"cleanup.policy": "compact", "max.message.bytes": str(LETTER_BYTES)}
    return NewTopicPlan(name, partitions, replication, config)


def planned_topics(topology: Topology, group: str, partitions: int, replication: int) -> list[NewTopicPlan]:
    """Input, prediction and dead-letter topics, the feature log, and those that the group is paused by and keeps its replays in."""
    kept = {"cleanup.policy": "delete"}
    return [
        *(NewTopicPlan(name, partitions, replication) for name in topology.source.topics),
        *(NewTopicPlan(name, partitions, replication) for name in (topology.sink.topic,) if name is not None),
        letters_plan(topology.dead_letters.topic, 1, replication),
        *(NewTopicPlan(log.topic, partitions, replication, kept) for log in (topology.feature_log,) if log is not None),
        control_plan(group, replication),
        replays_plan(group, replication),
    ]


def create_topics(
    topology: Topology, settings: Settings, partitions: int, replication: int
) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """Make the topics that are missing.

    Returns:
        The names of those made; of those that were there how many partitions they have, and how many were asked for.

    Raises:
        SourceUnavailable: the broker does not answer.
        FatalError: no rights, or the broker refuses the configuration.
    """
    admin = KafkaAdmin(settings.client())
    plans = planned_topics(topology, settings.group or topology.name, partitions, replication)
    there = admin.topics(plan.name for plan in plans)
    missing = [plan for plan in plans if plan.name not in there]
    admin.create(missing)
    kept = {plan.name: (there[plan.name].partitions, plan.partitions) for plan in plans if plan.name in there}
    return [plan.name for plan in missing], kept
