"""The topic that a group is paused by, and what to do without it (promise E4)."""

from __future__ import annotations

import logging
from typing import Final

from streamml.adapters.kafka.admin import NewTopicPlan
from streamml.adapters.kafka.control import KafkaControl
from streamml.compose.group_topics import ensure, plan_of, topic_of
from streamml.errors import FatalError
from streamml.settings.settings import Settings

_LOG: Final = logging.getLogger("streamml.control")
_KIND: Final = "control"


def control_topic(group: str) -> str:
    """``<group>.control``."""
    return topic_of(group, _KIND)


def control_plan(group: str, replication: int = -1) -> NewTopicPlan:
    """How the topic is made."""
    return plan_of(group, _KIND, replication)


def ensure_control(settings: Settings, group: str) -> str:
    """The topic's name; see `ensure`."""
    return ensure(settings, control_plan(group), f"Group {group} cannot be paused")


def open_control(settings: Settings, group: str) -> KafkaControl | None:
    """What tells a worker of pauses. Without the topic and the right to make it there is none, and a warning says so.

    Raises:
        SourceUnavailable: the broker does not answer.
    """
    try:
        return KafkaControl(settings.consumer(), settings.producer(), ensure_control(settings, group))
    except FatalError as error:
        _LOG.warning(
            "%s Until then `streamml pause` does not reach this worker, and a storm of dead letters ends it.", error
        )
        return None
