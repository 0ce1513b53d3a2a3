"""How replays stand: what was recorded, held against who carries them out and how far they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.ops.replay.registry import find, replays
from streamml.ops.replay.replay import Replay, Span
from streamml.ports.source import TopicPartition
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology


@dataclass(frozen=True, slots=True)
class Standing:
    """A replay, and how it stands.

    Args:
        state: as it was recorded; ``interrupted`` for one that is not over and that nobody carries out. Of one whose process
            died the broker says so when its session has ended, after six seconds.
        by: who carries it out.
        done, total: offsets that are committed, and all.
    """

    replay: Replay
    state: Literal["running", "interrupted", "done", "cancelled", "failed"]
    by: tuple[str, ...]
    done: int
    total: int


def standings(topology: Topology, settings: Settings) -> list[Standing]:
    """All replays of the topology's group, by number.

    Raises:
        SourceUnavailable: the broker does not answer.
        FatalError: this client lacks a right.
    """
    group = settings.group or topology.name
    return [_standing(settings, group, one) for one in replays(settings, group)]


def standing(topology: Topology, settings: Settings, number: int) -> Standing:
    """One replay.

    Raises:
        ConfigError: there is none of this number.
        SourceUnavailable: the broker does not answer.
    """
    group = settings.group or topology.name
    return _standing(settings, group, find(settings, group, number))


def _standing(settings: Settings, group: str, replay: Replay) -> Standing:
    by = tuple(holders(settings, group, replay.number)) if replay.state == "running" else ()
    total = sum(span.end - span.start for span in replay.spans)
    state = "interrupted" if replay.state == "running" and not by else replay.state
    return Standing(replay, state, by, _done(settings, group, replay), total)


def offsets_done(topology: Topology, settings: Settings, replay: Replay) -> int:
    """Offsets that a replay has committed.

    Raises:
        SourceUnavailable: the broker does not answer.
    """
    return _done(settings, settings.group or topology.name, replay)


def _done(settings: Settings, group: str, replay: Replay) -> int:
    at = committed(KafkaOffsets(settings.client()), name_of(group, replay.number), replay.spans)
    places = positions_of(replay.spans)
    return sum(min(max(at.get(where, start), start), end) - start for where, (start, end) in places.items())


def name_of(group: str, number: int) -> str:
    """The consumer group that keeps how far a replay is."""
    return f"{group}.replay.{number}"


def holders(settings: Settings, group: str, number: int) -> list[str]:
    """Who carries a replay out."""
    return KafkaAdmin(settings.client()).group_members(f"{name_of(group, number)}.running")


def positions_of(spans: Iterable[Span]) -> dict[TopicPartition, tuple[int, int]]:
    """First offset, and the one behind the last, by partition."""
    return {TopicPartition(span.topic, span.partition): (span.start, span.end) for span in spans}


def committed(offsets: KafkaOffsets, name: str, spans: Iterable[Span]) -> dict[TopicPartition, int]:
    """How far each partition is.

    Raises:
        SourceUnavailable: the broker does not answer.
    """
    return {where: one.offset for where, one in offsets.committed(name, positions_of(spans)).items()}
