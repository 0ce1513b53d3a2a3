"""Has the workers of a group pause, or go on (promise E4)."""

from __future__ import annotations

import getpass
import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from streamml.adapters.kafka.control import read_state, write_state
from streamml.clock import SystemClock
from streamml.compose.control import ensure_control
from streamml.engine.retry import Backoff
from streamml.errors import SourceUnavailable
from streamml.ports.control import GroupState
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology


@dataclass(frozen=True, slots=True)
class Told:
    """What a group was told.

    Args:
        group: consumer group.
        topic: where it is written.
        changed: whether it is news; a group that is paused stays paused as it was, and one that runs has nothing to resume.
        before, now: the group's states.
    """

    group: str
    topic: str
    changed: bool
    before: GroupState
    now: GroupState


def pause(
    topology: Topology, settings: Settings, reason: str, *, wait_s: float, waiting: Callable[[str], None]
) -> Told:
    """Have the group's workers finish what is on its way and take nothing more, until `resume`; restarts do not end it.

    Returns when the broker has it; workers that run hear of it at once.

    Args:
        reason: for people.
        wait_s: how long to try when the broker does not answer.
        waiting: hears why a try failed, before the next one.

    Raises:
        SourceUnavailable: the broker has not answered within ``wait_s``.
        FatalError: this client lacks a right.
    """
    return _tell(topology, settings, GroupState(True, reason, who(), _now_ms()), wait_s, waiting)


def resume(topology: Topology, settings: Settings, *, wait_s: float, waiting: Callable[[str], None]) -> Told:
    """Have the group's workers take records again, whatever paused them; arguments, end and errors as of `pause`."""
    return _tell(topology, settings, GroupState(False, "", who(), _now_ms()), wait_s, waiting)


def _tell(
    topology: Topology, settings: Settings, state: GroupState, wait_s: float, waiting: Callable[[str], None]
) -> Told:
    deadline, attempt = time.monotonic() + wait_s, 0
    while True:
        try:
            return _told(settings, settings.group or topology.name, state)
        except SourceUnavailable as error:
            attempt += 1
            delay = Backoff().delay(attempt, random.random())  # noqa: S311  jitter needs no secrecy
            if time.monotonic() + delay > deadline:
                raise
            waiting(str(error))
            time.sleep(delay)


def _told(settings: Settings, group: str, state: GroupState) -> Told:
    topic = ensure_control(settings, group)
    before = read_state(settings.consumer(), topic).state
    if before.paused == state.paused:
        return Told(group, topic, False, before, before)
    write_state(settings.producer(), topic, state)
    return Told(group, topic, True, before, state)


def who() -> str:
    """``user@host``; the user's number where it has no name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _now_ms() -> int:
    return int(SystemClock().now() * 1000)
