"""Work beside other work, for as long as that takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(
    work: Callable[[threading.Event], None], name: str, *, join_s: float | None = None
) -> Iterator[threading.Event]:
    """Run ``work`` on a daemon thread until the block ends, which sets the event that both are given, and wait for it.

    Args:
        name: of the thread.
        join_s: how long to wait for its end; ``None``: as long as it takes.
    """
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        ended.set()
        thread.join(join_s)
