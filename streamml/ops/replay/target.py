"""The topics that a replay writes to: they are its own, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from streamml.adapters.kafka.admin import USUAL_MESSAGE_BYTES, KafkaAdmin, NewTopicPlan
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.compose.control import control_topic
from streamml.errors import ConfigError
from streamml.ops.replay.registry import replays_topic
from streamml.ops.replay.replay import Replay
from streamml.ops.topics import letters_plan
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology

_KEPT: Final = {
    # Predictions have the time of what they are about, by which retention would remove those of last month at once.
    "retention.ms": "-1"
}


def default_target(topology: Topology) -> tuple[str, str]:
    """Topics of predictions and dead letters; ``{number}`` stands for the replay's."""
    into = f"{replay_prefix(topology)}{{number}}"
    return into, letters_of(into)


def replay_prefix(topology: Topology) -> str:
    """What the names of replays' own topics begin with."""
    return f"{topology.sink.topic or topology.name}.replay."


def letters_of(into: str) -> str:
    return f"{into}.dlq"


def check_target(topology: Topology, settings: Settings, replay: Replay, others: Sequence[Replay]) -> None:
    """Return if the replay may write to its topics; nothing was written yet.

    Args:
        others: replays of the group.

    Raises:
        ConfigError: a topic is a live one, has content, or another replay writes to it.
        SourceUnavailable: the broker does not answer.
    """
    problems = [*_live(topology, settings, replay), *_taken(replay, others)]
    if not problems and "{number}" not in replay.into:
        problems += _used(settings, replay)
    if problems:
        raise ConfigError(problems)


def _live(topology: Topology, settings: Settings, replay: Replay) -> Iterator[str]:
    group = settings.group or topology.name
    live = {
        topology.destination: "the live prediction topic",
        topology.dead_letters.topic: "the live dead-letter topic",
        control_topic(group): "the topic that the group is paused by",
        replays_topic(group): "the topic that replays are recorded in",
        **dict.fromkeys(topology.source.topics, "what the topology reads"),
        **({} if topology.feature_log is None else {topology.feature_log.topic: "the live feature log"}),
    }
    for name in (replay.into, replay.letters):
        if name in live:
            yield (
                f"{name!r} is {live[name]}; a replay writes to topics of its own. `streamml replay publish` brings its "
                "predictions into the live one, after a look at what changes."
            )


def _taken(replay: Replay, others: Sequence[Replay]) -> Iterator[str]:
    for one in others:
        if one.number != replay.number and one.state == "running" and one.into == replay.into:
            yield (
                f"Replay {one.number} writes to {replay.into!r} and is not over: resume or cancel it, or write into another "
                "topic."
            )


def _used(settings: Settings, replay: Replay) -> Iterator[str]:
    offsets = KafkaOffsets(settings.client())
    places = offsets.partitions([replay.into, replay.letters])
    bounds = offsets.bounds(places)
    for name in (replay.into, replay.letters):
        records = sum(high - low for where, (low, high) in bounds.items() if where.topic == name)
        if records:
            yield (
                f"The topic {name!r} has {records:,} records already; a replay writes into an empty one, so that it can be "
                "compared. Leave --into out for a topic of its own, or name another."
            )


def make_target(topology: Topology, settings: Settings, replay: Replay) -> None:
    """Make the topics, with as many partitions as the live ones have (as the input where predictions have no topic); those that
    are there stay as they are.

    Raises:
        FatalError: no rights, or the broker refuses.
        SourceUnavailable: the broker does not answer.
    """
    admin = KafkaAdmin(settings.client())
    like = topology.sink.topic or topology.source.topics[0]
    live = admin.topics([like, topology.dead_letters.topic])
    sink, letters = live.get(like), live.get(topology.dead_letters.topic)
    largest = USUAL_MESSAGE_BYTES if sink is None or like != topology.sink.topic else sink.max_message_bytes
    admin.create(
        [
            NewTopicPlan(
                replay.into,
                1 if sink is None else sink.partitions,
                config={**_KEPT, "max.message.bytes": str(largest)},
            ),
            letters_plan(replay.letters, 1 if letters is None else letters.partitions),
        ]
    )
