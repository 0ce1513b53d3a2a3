"""Whether arrivals are followed: a process that stands still with arrivals waiting has to say so and end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from streamml.errors import StreamMLError
from streamml.runtime.health import Health, Liveness, Signs


class Offsets(Protocol):
    """What a watch asks of a topic; `ArrivalsTopic` has it. Each may raise `SourceUnavailable`."""

    def committed(self) -> int:
        """The group's position: next offset."""

    def end(self) -> int:
        """Next offset to be written."""

    def between(self, start: int, end: int) -> Iterable[Any]:
        """Records from ``start`` up to, without, ``end``."""


class Watch:
    """Asks for progress, on a thread and by a connection of its own: whatever stands still, this does not.

    A process without the partition is judged by its group's position: if nobody follows, all say so.
    """

    def __init__(
        self,
        position: Callable[[], int | None],
        topic: Offsets,
        patience_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            position: of this process; ``None`` where it has not the partition.
            patience_s: how long arrivals may wait without progress.
            now: seconds of a clock that never goes back.
        """
        self._position = position
        self._topic = topic
        self._liveness = Liveness(patience_s)
        self._now = now
        self._nothing_until = 0

    def live(self) -> Health:
        """The verdict now. A broker that does not answer is waited for."""
        try:
            position = self._position()
            at = self._topic.committed() if position is None else position
            end = self._topic.end()
            health = self._judge(at, 0 if end <= self._nothing_until else end - at)
            if not health.ok and not any(True for _ in self._topic.between(at, end)):
                # Transactions leave markers, which count as offsets and are no records.
                self._nothing_until = end
                return self._judge(at, 0)
        except StreamMLError as error:
            return self._liveness.judge(Signs(waits_for=str(error)), self._now())
        return health

    def _judge(self, at: int, behind: int) -> Health:
        return self._liveness.judge(Signs(at_hand=max(0, behind), progress=(at,)), self._now())
