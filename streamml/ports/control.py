"""The contract of what a whole group is told: to take records, or to pause (promise E4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from streamml.errors import FatalError


@dataclass(frozen=True, slots=True)
class Storm:
    """More dead letters than a topology allows.

    Args:
        share: of dead letters among the records.
        sample: how many records that were.
    """

    share: float
    sample: int


@dataclass(frozen=True, slots=True)
class GroupState:
    """Whether the workers of a group take records.

    Args:
        paused: whether they take none.
        reason: why, for people.
        by: who said so, ``user@host`` or the name of a worker.
        time_ms: when, ms since 1970 UTC.
        storm: where a storm of dead letters is why. Then nothing is committed either, not even what was on its way.
    """

    paused: bool = False
    reason: str = ""
    by: str = ""
    time_ms: int = 0
    storm: Storm | None = None


RUNNING = GroupState()


def how_paused(state: GroupState) -> str:
    """A pause in sentences, with what ends it."""
    behind = (
        "Nothing is committed behind what was settled before. Mend the cause; `streamml resume` goes on behind the records "
        "that were weighed, workers that were started again before that read them anew."
        if state.storm is not None
        else "What is on its way is finished; `streamml resume` goes on."
    )
    return f"Paused by {state.by}: {state.reason}. {behind}"


class Control(Protocol):
    """Where a group's state is kept; it outlives all workers.

    `open` first, `close` last; `record` may be called in between, from any thread.
    """

    def open(self, changed: Callable[[GroupState], None], failed: Callable[[FatalError], None]) -> GroupState:
        """The present state. From now on ``changed`` hears of each new one, on another thread.

        Where the state cannot be read any more, that is tried again until it can.

        Args:
            failed: hears, on another thread, that the group cannot be told what it is to be told, however often that is tried.

        Raises:
            SourceUnavailable: the broker does not answer; `open` may be called again.
        """
        ...

    def record(self, state: GroupState) -> None:
        """Tell the group. Does not wait; tried again until it is written. What others said before is not told any more."""
        ...

    def trouble(self) -> str | None:
        """Why the group cannot be told, or heard of; ``None`` while it can. Any thread may ask; it does not wait."""
        ...

    def close(self) -> None:
        """Hear of nothing any more."""
        ...
