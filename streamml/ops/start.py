"""A start that waits for what it needs."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from streamml.engine.retry import Backoff
from streamml.errors import TransientError

_LOG: Final = logging.getLogger("streamml.start")

T = TypeVar("T")


def start(
    attempt: Callable[[], T], *, wait: Callable[[float], object] = time.sleep, patience_s: float | None = None
) -> T:
    """What ``attempt`` returns, tried again while what it needs does not answer.

    Args:
        wait: takes the seconds until the next try.
        patience_s: for how long; ``None``: for ever.

    Raises:
        TransientError: what it needs has not answered for longer.
    """
    begun, number = time.monotonic(), 0
    while True:
        try:
            return attempt()
        except TransientError as error:
            if patience_s is not None and time.monotonic() - begun > patience_s:
                raise
            number += 1
            delay = Backoff().delay(number, random.random())  # noqa: S311  jitter needs no secrecy
            _LOG.warning("Attempt %d to start, the next one in %.1f s: %s", number, delay, error)
        wait(delay)
