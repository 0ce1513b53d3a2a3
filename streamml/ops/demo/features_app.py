"""The app that keeps the fast features fresh, as the demo runs, kills and sees it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from streamml.ops.demo.freshness import Freshness, Outage
from streamml.ops.demo.kept import Kept

State = Literal["running", "killed", "restarting"]


class FeaturesApp:
    """Started again whenever it ends, and judged by what predictions say of its values."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], freshness: Freshness) -> None:
        """
        Args:
            command: program and arguments.
            environment: added to this process's.
        """
        self._kept = Kept(command, environment)
        self._freshness = freshness
        self.kills: list[float] = []
        """When, seconds since 1970."""

    def start(self) -> None:
        self._kept.thread.start()

    def kill(self) -> None:
        """SIGKILL."""
        self.kills.append(time.time())
        self._kept.kill()

    def stop(self) -> None:
        """End it in good order, or after a while by force."""
        self._kept.stop()

    def state(self, now: float) -> State:
        """Whether values are kept fresh. ``restarting``: the process is there, and predictions do not use new values of its own yet."""
        if not self._kept.alive:
            return "killed"
        if not self.kills:
            return "running"
        outages = self._outages(len(self.kills) - 1, now).values()
        return "running" if all(one.over(now - self.kills[-1]) for one in outages) else "restarting"

    def _outages(self, number: int, now: float) -> dict[str, Outage]:
        """By set, what a kill did."""
        until = (*self.kills, now)[number + 1]
        return {name: self._freshness.outage(name, self.kills[number], until) for name in self._freshness.sets}

    def told(self, begun: float, now: float) -> dict[str, Any]:
        """How it stands, as JSON.

        Args:
            begun: when the stream was, seconds since 1970.
        """
        return {
            "state": self.state(now),
            "starts": self._kept.starts,
            "kills": [
                {
                    "at_s": round(killed_at - begun, 2),
                    "sets": {name: asdict(one) for name, one in self._outages(number, now).items()},
                }
                for number, killed_at in enumerate(self.kills)
            ],
        }
