"""How replays stand: what was recorded, held against who carries them out and how far they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.probe import GroupProbe
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
    # A broker forgets a group's positions in time.
    done = total if state == "done" else _done(settings, group, replay)
    return Standing(replay, state, by, done, total)


def _done(settings: Settings, group: str, replay: Replay) -> int:
    probe = GroupProbe(settings.consumer(), name_of(group, replay.number))
    try:
        return offsets_done(probe, replay)
    finally:
        probe.close()


def follow(topology: Topology, settings: Settings, replay: Replay) -> Callable[[], int]:
    """Asks for the offsets that a replay has committed; the one that is asked raises `SourceUnavailable`."""
    probe = GroupProbe(settings.consumer(), name_of(settings.group or topology.name, replay.number))
    return lambda: offsets_done(probe, replay)


def offsets_done(probe: GroupProbe, replay: Replay) -> int:
    """Offsets that a replay has committed.

    Args:
        probe: of the replay's group.

    Raises:
        SourceUnavailable: the broker does not answer.
    """
    places = positions_of(replay.spans)
    at = probe.committed(places)
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
