"""Problems that many declarations can have, as sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from streamml.topology.duration import seconds

KEPT_FOR_S: Final = 1e-3
"""Shortest time for which Redis keeps anything."""
TOPIC_NAMES: Final = "1 to 249 of A-Z a-z 0-9 . _ -, and neither . nor .."
_CENTURY_S: Final = 36_525 * 86_400.0
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Parts of keys of Redis.
_RESERVED: Final = re.compile(r"current|versions|writers|live-[0-9a-f]{8}")


def choice_problems(what: str, value: object, allowed: tuple[str, ...]) -> Iterator[str]:
    """Whether ``value`` is one of ``allowed``; ``what`` begins the sentence."""
    if value not in allowed:
        yield f"{what} is {value!r}; choose among {', '.join(allowed)}."


def duration_problems(what: str, spelling: str | None, least_s: float | None = None) -> Iterator[str]:
    """Whether ``spelling`` is a duration that is longer than nothing and shorter than a century; ``what`` begins the sentence.

    Args:
        least_s: the shortest; ``None``: any that is longer than nothing.
    """
    try:
        found = _CENTURY_S if spelling is None else seconds(spelling)
    except ValueError as error:
        yield f"{what}: {error}"
        return
    if found <= 0 and least_s != 0:
        yield f"{what} is {spelling!r}; it has to be longer than nothing."
    elif not (least_s or 0) <= found <= _CENTURY_S:
        yield f"{what} is {spelling!r}; it has to be from {(least_s or 0) * 1000:g}ms to {_CENTURY_S / 86400:.0f}d."


def names_topic(name: object) -> bool:
    """Whether Kafka takes ``name`` as that of a topic: `TOPIC_NAMES`."""
    return isinstance(name, str) and _TOPIC.fullmatch(name) is not None and name not in (".", "..")


def topic_problem(what: str, name: object) -> str | None:
    """Why ``name`` cannot be the name of a topic, or ``None``; ``what`` begins the sentence."""
    if names_topic(name):
        return None
    return f"{what} {name!r} cannot be the name of a topic, which is {TOPIC_NAMES}; give another one."


def name_problem(what: str, name: str) -> str | None:
    """Why ``name`` cannot be the name of a set or version (``what``), or ``None``."""
    if _NAME.fullmatch(name) is None:
        return f"{what} {name!r} is no valid name: write 1 to 64 of A-Z a-z 0-9 . _ - with a letter or digit first."
    if _RESERVED.fullmatch(name):
        return f"{what} {name!r} is a reserved name; choose another."
    return None


def latest_name_problem(name: object) -> str | None:
    """Why ``name`` cannot be that of latest predictions, or ``None``."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return None
    return f"The RedisSink's name {name!r} is none; write 1 to 64 of A-Z a-z 0-9 . _ - with a letter or digit first."
