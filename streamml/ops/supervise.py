"""Several workers of one topology on this machine: processes of one group, restarted when they crash."""

from __future__ import annotations

import json
import logging
import random
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from streamml.engine.retry import Backoff
from streamml.errors import ConfigError, FatalError, Fenced, StreamMLError
from streamml.ops.embedded.process import die_with_parent

_LOG: Final = logging.getLogger("streamml.supervise")


@dataclass(frozen=True, slots=True)
class Restarts:
    """How much crashing is borne.

    Args:
        most: crashes of one worker within ``window_s`` after which the supervisor gives up.
        window_s: seconds.
    """

    most: int = 5
    window_s: float = 60.0
    backoff: Backoff = field(default_factory=lambda: Backoff(0.2, 5.0))


def supervise(
    arguments: Callable[[int], Sequence[str]],
    workers: int,
    stop: threading.Event,
    *,
    restarts: Restarts | None = None,
    started: Callable[[int, int], None] = lambda number, pid: None,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Run ``workers`` processes of ``streamml run`` until all have ended; returns their summaries.

    Args:
        arguments: of ``streamml``, by the worker's number; each prints its summary as JSON.
        stop: ends them all in good order.
        started: hears the number and process id of every process that starts.
        quiet: whether what workers say on stderr is dropped, for a live view.

    Raises:
        FatalError: a worker crashed again and again; the others were stopped in good order.
        ConfigError: a worker ended with exit code 2, after it said why.
        Fenced: a worker was fenced.
    """
    children = [
        _Child(number, list(arguments(number)), restarts or Restarts(), stop, started, quiet)
        for number in range(workers)
    ]
    for child in children:
        child.thread.start()
    for child in children:
        child.thread.join()
    errors = [child.error for child in children if child.error is not None]
    if errors:
        raise errors[0]
    return [summary for child in children for summary in child.summaries]


class _Child:
    """One worker's process, and the thread that watches it."""

    def __init__(
        self,
        number: int,
        arguments: list[str],
        restarts: Restarts,
        stop: threading.Event,
        started: Callable[[int, int], None],
        quiet: bool,
    ) -> None:
        self._number = number
        self._arguments = arguments
        self._restarts = restarts
        self._stop = stop
        self._started = started
        self._stderr = subprocess.DEVNULL if quiet else None
        self._crashes: deque[float] = deque()
        self.summaries: list[dict[str, Any]] = []
        self.error: StreamMLError | None = None
        self.thread = threading.Thread(target=self._watch, name=f"streamml-worker-{number}")

    def _watch(self) -> None:
        while not self._stop.is_set():
            code = self._run_once()
            if code == 0 or self._stop.is_set():
                return
            self.error = self._verdict(code)
            if self.error is not None:
                self._stop.set()
                return
            delay = self._restarts.backoff.delay(len(self._crashes), random.random())  # noqa: S311
            _LOG.warning("Worker %d ended with code %d; starting it again in %.1f s.", self._number, code, delay)
            self._stop.wait(delay)

    def _run_once(self) -> int:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamml", *self._arguments],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            # Ctrl-C in a terminal goes to the whole group; the supervisor alone decides when a worker ends.
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509  one system call, no Python lock
        )
        self._started(self._number, process.pid)
        ended = threading.Event()
        ender = threading.Thread(target=self._end_when_asked, args=(process, ended))
        ender.start()
        assert process.stdout is not None
        printed = process.stdout.read()
        code = process.wait()
        ended.set()
        ender.join()
        lines = printed.strip().splitlines()
        if lines:
            self.summaries.append(json.loads(lines[-1]))
        return code

    def _end_when_asked(self, process: subprocess.Popen[str], ended: threading.Event) -> None:
        while not ended.wait(0.05):
            if self._stop.is_set():
                process.send_signal(signal.SIGTERM)
                return

    def _verdict(self, code: int) -> StreamMLError | None:
        """The error to end with, or ``None`` where the worker is to be started again."""
        if code == 2:
            return ConfigError(f"Worker {self._number} could not start; its message is above.")
        if code == 4:
            return Fenced(f"Worker {self._number} was fenced: another process has its identity.")
        now = time.monotonic()
        self._crashes.append(now)
        while now - self._crashes[0] > self._restarts.window_s:
            self._crashes.popleft()
        if len(self._crashes) < self._restarts.most:
            return None
        return FatalError(
            f"Worker {self._number} crashed {len(self._crashes)} times within {self._restarts.window_s:.0f} s, the last "
            f"time with code {code}. Its log above says why; nothing is lost: what it had not committed will be read again."
        )
