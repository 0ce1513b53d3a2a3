"""The replays of a group, kept on the broker so that every machine sees them.

The topic ``<group>.replays`` is compacted and has one partition. A run first writes a claim, whose offset gives it its
number: no two hosts get the same. Then it keeps one record, by number, of how it stands.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Final

import msgspec

from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.adapters.kafka.append import append
from streamml.adapters.kafka.tail import read_topic
from streamml.compose.group_topics import ensure, plan_of, topic_of
from streamml.errors import ConfigError
from streamml.ops.replay.replay import Replay
from streamml.settings.settings import Settings

_KIND: Final = "replays"
_CLAIM: Final = b"claim"
_VERSION: Final = 1


def replays_topic(group: str) -> str:
    """``<group>.replays``."""
    return topic_of(group, _KIND)


def replays_plan(group: str, replication: int = -1) -> NewTopicPlan:
    """How the topic is made."""
    return plan_of(group, _KIND, replication)


def claim(settings: Settings, group: str, draft: Replay) -> Replay:
    """The draft with a number that nobody else has, and never had; recorded.

    Args:
        draft: in the names of its topics, ``{number}`` becomes the number.

    Raises:
        SourceUnavailable: the broker does not answer.
        FatalError: this client lacks a right on the topic.
    """
    topic = ensure(settings, replays_plan(group), f"Replays of group {group} cannot be recorded")
    number = append(settings.producer(), topic, _CLAIM, draft.by.encode()) + 1
    into, letters = (name.replace("{number}", str(number)) for name in (draft.into, draft.letters))
    found = replace(draft, number=number, into=into, letters=letters)
    record(settings, group, found)
    return found


def record(settings: Settings, group: str, replay: Replay) -> None:
    """Keep how a replay stands.

    Raises:
        SourceUnavailable: the broker does not answer.
        FatalError: this client lacks a right on the topic, or it is gone.
    """
    document = json.dumps({"version": _VERSION, **asdict(replay)}).encode()
    append(settings.producer(), replays_topic(group), str(replay.number).encode(), document)


def replays(settings: Settings, group: str) -> list[Replay]:
    """All replays of a group, by number; none where none was ever started.

    Raises:
        SourceUnavailable: the broker does not answer.
        FatalError: this client lacks a right on the topic.
    """
    topic = replays_topic(group)
    if KafkaAdmin(settings.client()).topic_id(topic) is None:
        return []
    latest: dict[bytes | None, Replay] = {}
    for one in read_topic(settings.consumer(), topic):
        if (found := read_replay(one.record.value)) is not None:
            latest[one.record.key] = found
    return sorted(latest.values(), key=lambda one: one.number)


def find(settings: Settings, group: str, number: int) -> Replay:
    """The replay of this number.

    Raises:
        ConfigError: there is none.
        SourceUnavailable: the broker does not answer.
    """
    every = replays(settings, group)
    for one in every:
        if one.number == number:
            return one
    there = ", ".join(str(one.number) for one in every)
    raise ConfigError(
        f"Group {group} has no replay {number}; there are {there}. `streamml replay list` shows them."
        if there
        else f"Group {group} has no replay {number}, nor any other yet; `streamml replay start` makes one."
    )


def read_replay(value: bytes | None) -> Replay | None:
    """A replay as it was recorded; ``None`` for what is no replay: a claim, another program's record, a later version's."""
    try:
        told = msgspec.json.decode(value or b"")
        if told["version"] != _VERSION:
            return None
        # What a later streamml may have added is passed over.
        found = msgspec.convert(told, Replay)
    except (msgspec.MsgspecError, KeyError, TypeError, UnicodeError, RecursionError):
        return None
    return found if found.number > 0 else None
