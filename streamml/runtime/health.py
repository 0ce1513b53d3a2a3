"""Whether a worker is ready, and whether it is alive: judged from what it shows of itself (promise L2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from streamml.ports.control import RUNNING, GroupState


class Health(NamedTuple):
    """A verdict; ``reason`` says why, for people."""

    ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Signs:
    """What a worker shows at one moment.

    Args:
        joined: whether it is a member of its group.
        draining: whether it was asked to stop.
        group_state: what its group was told.
        waits_for: what does not answer, and is waited for; empty where all do.
        unheard: why its group cannot be told of a storm, or it of a pause; empty where both can be.
        at_hand: records that are not settled: polled ones, and those that wait in the topics.
        progress: numbers of which at least one grows whenever work is done.
        longest: what a thread has been at for longest, and for how many seconds.
    """

    joined: bool = True
    draining: bool = False
    group_state: GroupState = RUNNING
    waits_for: str = ""
    unheard: str = ""
    at_hand: int = 0
    progress: tuple[int, ...] = ()
    longest: tuple[str, float] = ("", 0.0)


def ready(signs: Signs) -> Health:
    """Whether records that come now are scored."""
    if signs.draining:
        return Health(False, "draining: it finishes what is on its way and leaves")
    if signs.group_state.paused:
        return Health(False, f"paused: {signs.group_state.reason}{_besides(signs.unheard)}")
    if not signs.joined:
        return Health(False, "joining its group")
    if signs.waits_for:
        return Health(False, f"waiting: {signs.waits_for}")
    return Health(True, f"ready{_besides(signs.unheard)}")


def _besides(trouble: str) -> str:
    return f"; {trouble}" if trouble else ""


class Liveness:
    """Whether there is progress where there is something to do. It has to be asked from time to time.

    A step that does not come back is no progress, and neither is an engine that stands still with records at hand. Waiting
    for a broker or a store that does not answer is being alive, and so is a pause.
    """

    def __init__(self, patience_s: float) -> None:
        """
        Args:
            patience_s: how long there may be no progress.
        """
        self._patience_s = patience_s
        self._progress: tuple[int, ...] | None = None
        self._since = 0.0

    def judge(self, signs: Signs, now: float) -> Health:
        """The verdict at ``now``, in seconds of a clock that never goes back."""
        what, seconds = signs.longest
        if seconds > self._patience_s:
            return Health(False, f"{what} has not come back for {seconds:.0f} s")
        idle = not signs.at_hand or signs.waits_for or signs.group_state.paused or signs.draining
        if idle or signs.progress != self._progress:
            self._progress, self._since = signs.progress, now
        elif now - self._since > self._patience_s:
            return Health(
                False, f"{signs.at_hand} records are at hand, and nothing was done for {now - self._since:.0f} s"
            )
        return Health(True, "alive")
