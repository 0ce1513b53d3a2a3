"""Topics that a group keeps something of its own in: their names, how they are made, and what to do without them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan, TopicInfo
from streamml.errors import FatalError, SourceUnavailable
from streamml.settings.settings import Settings

_LONGEST: Final = 200
RIGHTS: Final = ("READ", "WRITE")


def topic_of(group: str, kind: str) -> str:
    """``<group>.<kind>``. A group may have any name; of one that no topic can have, a hash tells it from others."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", group)[:_LONGEST]
    if name != group:
        name = f"{name}-{hashlib.sha256(group.encode()).hexdigest()[:12]}"
    return f"{name}.{kind}"


def plan_of(group: str, kind: str, replication: int = -1) -> NewTopicPlan:
    """How the topic is made: compacted, with one partition, so that its records have one order."""
    return NewTopicPlan(topic_of(group, kind), 1, replication, {"cleanup.policy": "compact"})


def lacking(topic: str, found: Mapping[str, TopicInfo], hidden: tuple[str, ...]) -> str | None:
    """Why this client cannot use the topic, as the broker has it now; ``None`` where it can."""
    if topic in hidden:
        return f"this client lacks the right DESCRIBE on the topic {topic!r}"
    if topic not in found:
        return f"there is no topic {topic!r}; `streamml topics create` makes it, and so does a worker that may"
    rights = found[topic].rights
    missing = [right for right in RIGHTS if rights is not None and right not in rights]
    return f"this client lacks the right {' and '.join(missing)} on the topic {topic!r}" if missing else None


def ensure(settings: Settings, plan: NewTopicPlan, otherwise: str) -> str:
    """The topic's name, when it is there and this client may read and write it; it is made where it is missing.

    Args:
        otherwise: what cannot be done without it, for people.

    Raises:
        FatalError: this client lacks a right, or the broker refuses the topic.
        SourceUnavailable: the broker does not answer.
    """
    admin = KafkaAdmin(settings.client())
    found = admin.find_topics([plan.name])
    if not found.topics and not found.hidden:
        _create(admin, plan)
        return plan.name
    if (reason := lacking(plan.name, found.topics, found.hidden)) is not None:
        raise FatalError(f"{otherwise}: {reason}. `streamml acls` prints what it needs.")
    return plan.name


def _create(admin: KafkaAdmin, plan: NewTopicPlan) -> None:
    try:
        admin.create([plan])
    except SourceUnavailable as error:
        # It answered just now: it has something against this topic, and trying again would not help.
        raise FatalError(
            f"The topic {plan.name!r} could not be made: {error} Make it by `streamml topics create`."
        ) from error
