"""Whether threads come back from what they do (promise L2)."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from streamml.runtime.health import Health
from streamml.runtime.meanwhile import meanwhile

_LOG: Final = logging.getLogger("streamml.worker")
_LOOK_S: Final = 0.5


class Pulse:
    """What each thread of a worker is at, and since when. Each key is of one thread."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, str], float] = {}

    def at(self, what: str) -> _At:
        """Something that has to end, for a ``with`` statement."""
        # Two stages of one model have one name.
        return _At(self._since, (threading.get_ident(), what))

    def longest(self) -> tuple[str, float]:
        """What has been under way for longest, and for how many seconds."""
        now = time.monotonic()
        return max(
            ((what, now - since) for (_, what), since in list(self._since.items())),
            key=lambda one: one[1],
            default=("", 0.0),
        )


class _At:
    """One thing that has to end. A class of its own, as a generator for each batch costs more."""

    __slots__ = ("_key", "_since")

    def __init__(self, since: dict[tuple[int, str], float], key: tuple[int, str]) -> None:
        self._since = since
        self._key = key

    def __enter__(self) -> None:
        self._since[self._key] = time.monotonic()

    def __exit__(self, *error: object) -> None:
        del self._since[self._key]


@contextmanager
def watched(live: Callable[[], Health]) -> Iterator[None]:
    """End the process with exit code 3 and the stacks of all threads when it is not ``live`` any more.

    Nobody inside can end a thread that hangs, and a worker that hangs keeps its partitions: it goes on polling.
    """

    def watch(ended: threading.Event) -> None:
        while not ended.wait(_LOOK_S):
            health = live()
            if not health.ok:
                _LOG.error("This worker is stuck: %s. It ends; nothing is lost.", health.reason)
                faulthandler.dump_traceback(sys.__stderr__ or 2)
                os._exit(3)

    with meanwhile(watch, "streamml-watchdog"):
        yield
