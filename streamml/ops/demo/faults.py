"""Faults of the demo: which there are, which happened, and which come by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from streamml.errors import ConfigError

_PLACES: Final = {"kill": 0.25, "features": 0.3, "app": 0.4, "poison": 0.5, "slow": 0.75}
_REMEDIES: Final = {"features": ((0.6, "mend"), (0.6, "publish")), "poison": ((0.7, "clean"),)}
_PAUSE_MS: Final = 3000
FAULTS: Final = ("kill", "poison", "slow", "features", "app")


@dataclass(slots=True)
class Fault:
    """A fault that happened.

    Args:
        at_s: seconds since the first event.
        recovered_s: seconds from the fault to the first prediction of an event that was produced after it.
    """

    name: str
    at_s: float
    moment_ms: float
    recovered_s: float | None = None


class Script:
    """Faults that come by themselves, each at its place in the stream, and their remedies."""

    def __init__(self, asked: Sequence[str]) -> None:
        """
        Args:
            asked: names of faults.
        """
        steps = [(_PLACES[name], name) for name in asked]
        steps += [step for name in asked for step in _REMEDIES.get(name, ())]
        self._steps = sorted(steps, key=lambda step: step[0])

    @property
    def ended(self) -> bool:
        return not self._steps

    def due(self, share: float) -> str | None:
        """What is next, if the stream is as far; asked again, the same until it was `done`.

        Args:
            share: how much of the stream is produced, 0 to 1.
        """
        return self._steps[0][1] if self._steps and share >= self._steps[0][0] else None

    def done(self) -> None:
        """What was next has begun."""
        del self._steps[0]

    def end(self) -> None:
        """Nothing more comes."""
        self._steps.clear()


def faults_of(text: Sequence[str]) -> tuple[str, ...]:
    """Names of faults.

    Raises:
        ConfigError: one is unknown.
    """
    unknown = [name for name in text if name not in FAULTS]
    if unknown:
        raise ConfigError(f"{', '.join(unknown)} is no fault of the demo; choose among {', '.join(FAULTS)}.")
    return tuple(dict.fromkeys(text))


def pause_redis(url: str) -> None:
    """Let Redis answer nobody for three seconds."""
    import redis

    with redis.Redis.from_url(url) as client:
        client.execute_command("CLIENT", "PAUSE", _PAUSE_MS)
