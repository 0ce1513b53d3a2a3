"""Problems that many declarations can have, as sentences."""

from __future__ import annotations

from collections.abc import Iterator

from streamml.topology.duration import seconds


def choice_problems(what: str, value: object, allowed: tuple[str, ...]) -> Iterator[str]:
    """Whether ``value`` is one of ``allowed``; ``what`` begins the sentence."""
    if value not in allowed:
        yield f"{what} is {value!r}; choose among {', '.join(allowed)}."


def duration_problems(what: str, spelling: str | None) -> Iterator[str]:
    """Whether ``spelling`` is a duration that is longer than nothing; ``what`` begins the sentence."""
    try:
        if spelling is not None and seconds(spelling) <= 0:
            yield f"{what} is {spelling!r}; it has to be longer than nothing."
    except ValueError as error:
        yield f"{what}: {error}"
