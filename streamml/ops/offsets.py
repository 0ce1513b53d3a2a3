"""Positions of a topology's group: shown, and set where they do not hold any more (promise D7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.offsets import Committed, KafkaOffsets
from streamml.errors import ConfigError, TopologyError
from streamml.ports.source import TopicPartition
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology

FINE: Final = ("ok", "not started")
"""States of a position from which a worker can go on."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a group is in one partition.

    Args:
        committed: the next offset to be scored; ``None``: the group has none.
        earliest, latest: first offset, and the next one to be written.
        state: ``ok``, ``not started``, or why a worker would stop: ``below retention``, ``beyond the end``, ``of an earlier
            topic``.
    """

    where: TopicPartition
    committed: int | None
    earliest: int
    latest: int
    state: str

    @property
    def lag(self) -> int | None:
        """Records to be scored; ``None`` where that is not known."""
        return None if self.committed is None or self.state not in FINE else self.latest - self.committed


@dataclass(frozen=True, slots=True)
class GroupPositions:
    """A group, who is in it, and where it is."""

    group: str
    members: tuple[str, ...]
    partitions: tuple[Position, ...]
    topic_ids: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Move:
    """One partition's part of a reset."""

    position: Position
    to: int

    @property
    def effect(self) -> str:
        """What happens because of it, for people."""
        if self.position.state in ("not started", "of an earlier topic"):
            return f"begins; {self.to - self.position.earliest:,} records before it are not scored"
        assert self.position.committed is not None
        here = min(max(self.position.committed, self.position.earliest), self.position.latest)
        if self.to == here:
            return "stays" if here == self.position.committed else "goes on with what is there"
        return (
            f"skips {self.to - here:,} records" if self.to >= here else f"scores up to {here - self.to:,} records again"
        )


def positions(topology: Topology, settings: Settings) -> GroupPositions:
    """Where the topology's group is.

    Raises:
        TopologyError: an input topic is missing.
        SourceUnavailable: the broker does not answer.
        FatalError: this client may not look at topics or group.
    """
    group = settings.group or topology.name
    admin, offsets = KafkaAdmin(settings.client()), KafkaOffsets(settings.client())
    topics = admin.topics(topology.source.topics)
    missing = [name for name in topology.source.topics if name not in topics]
    if missing:
        raise TopologyError(f"There is no topic {', '.join(missing)} on {settings.brokers}; see --brokers.")
    ids = {name: one.id for name, one in topics.items()}
    places = offsets.partitions(topology.source.topics)
    bounds, committed = offsets.bounds(places), offsets.committed(group, places)
    found = [_position(where, committed.get(where), *bounds[where], ids[where.topic]) for where in sorted(places)]
    return GroupPositions(group, tuple(admin.group_members(group)), tuple(found), ids)


def _position(where: TopicPartition, committed: Committed | None, low: int, high: int, topic_id: str) -> Position:
    if committed is None:
        return Position(where, None, low, high, "not started")
    if committed.topic_id not in ("", topic_id):
        state = "of an earlier topic"
    elif committed.offset < low:
        state = "below retention"
    else:
        state = "ok" if committed.offset <= high else "beyond the end"
    return Position(where, committed.offset, low, high, state)


def plan_reset(found: GroupPositions, settings: Settings, to: str, chosen: Sequence[str] = ()) -> list[Move]:
    """What a reset would do; nothing is changed.

    Args:
        to: ``earliest``, ``latest``, an offset, or a time (ISO 8601; UTC unless it says otherwise): the first record of that
            time or later.
        chosen: partitions as ``NUMBER`` (of every topic) or ``TOPIC/NUMBER``; none: all.

    Raises:
        ConfigError: the group has members, or ``to`` or ``chosen`` cannot be; with every problem.
        SourceUnavailable: the broker does not answer.
    """
    if found.members:
        raise ConfigError(
            f"Group {found.group} has members ({', '.join(found.members)}): stop its workers first. A worker of this machine "
            "that was stopped or killed counts as one until its session has ended, 10 s by default."
        )
    problems: list[str] = []
    wanted = set(picked([one.where for one in found.partitions], chosen, problems))
    moving = [one for one in found.partitions if one.where in wanted]
    target = _target(to, moving, settings, problems)
    moves = [Move(one, target(one)) for one in moving]
    problems += [
        f"{move.position.where} has offsets {move.position.earliest} to {move.position.latest}, and not {move.to}; "
        "choose one of these, or --partition."
        for move in moves
        if not move.position.earliest <= move.to <= move.position.latest
    ]
    if problems:
        raise ConfigError(problems)
    return moves


def reset(found: GroupPositions, settings: Settings, moves: Iterable[Move]) -> None:
    """Do what was planned.

    Raises:
        ConfigError: the group has members by now; nothing was set.
        SourceUnavailable: the broker does not answer.
        FatalError: this client may not commit for the group.
    """
    to = {move.position.where: move.to for move in moves}
    KafkaOffsets(settings.client()).commit(found.group, to, found.topic_ids)


def picked(every: Sequence[TopicPartition], chosen: Sequence[str], problems: list[str]) -> list[TopicPartition]:
    """Partitions by ``NUMBER`` or ``TOPIC/NUMBER``, all where none is chosen; what names none joins the problems."""
    names = {one: {str(one.partition), f"{one.topic}/{one.partition}"} for one in every}
    known = set().union(*names.values())
    problems += [
        f"There is no partition {name!r}; there are {', '.join(map(str, every))}. Name one as NUMBER or TOPIC/NUMBER."
        for name in chosen
        if name not in known
    ]
    return [one for one in every if not chosen or names[one] & set(chosen)]


def _target(to: str, moving: Sequence[Position], settings: Settings, problems: list[str]) -> Callable[[Position], int]:
    """Where each partition goes."""
    if to == "earliest":
        return lambda one: one.earliest
    if to == "latest":
        return lambda one: one.latest
    if to.isdecimal():
        return lambda one: int(to)
    try:
        time = datetime.fromisoformat(to)
    except ValueError:
        problems.append(f"--to {to!r} is none of earliest, latest, an offset, or a time like 2026-01-31T12:00:00Z.")
        return lambda one: one.latest
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    first = KafkaOffsets(settings.client()).at([one.where for one in moving], round(aware.timestamp() * 1000))
    return lambda one: first[one.where] if first[one.where] >= 0 else one.latest
