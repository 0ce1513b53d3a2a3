"""What SIGTERM and Ctrl-C do to a command."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import click

GRACE_S: Final = 10.0
"""What a command is given to end in good order beyond its longest step, in seconds."""
_ONE_SIGNAL_S: Final = 0.5


def on_signals(stop: Any, patience_s: float | None = None) -> None:
    """First signal: end in good order, by force after ``patience_s``. Second: at once (promise L3).

    `timeout` and other wrappers send theirs to the process and to its group: what comes twice within half a second is one.
    """

    def give_up() -> None:
        click.echo(
            "Error: a step does not come back, so this worker ends without its last commit; nothing is lost.", err=True
        )
        os._exit(3)

    def handle(number: int, frame: object) -> None:
        if patience_s is not None:
            # Where even the interpreter hangs, on its way out: a client's thread that does not end.
            faulthandler.dump_traceback_later(patience_s + GRACE_S, exit=True)
            timer = threading.Timer(patience_s, give_up)
            timer.daemon = True
            timer.start()
        first = time.monotonic()

        def again(number: int, frame: object) -> None:
            if time.monotonic() - first > _ONE_SIGNAL_S:
                os._exit(128 + number)

        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, again)
        # A handler runs between any two steps of the main thread, which may hold the very lock that `stop` needs.
        threading.Thread(target=stop).start()

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, handle)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM ends what is inside as Ctrl-C does, so that nothing is left behind on the disk."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {one: signal.signal(one, end) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
