"""Several workers of one topology on this machine: processes of one group, restarted when they crash."""

from __future__ import annotations

import json
import logging
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from streamml.engine.retry import Backoff
from streamml.errors import ConfigError, FatalError, Fenced, StreamMLError
from streamml.ops.embedded.process import die_with_parent

_LOG: Final = logging.getLogger("streamml.supervise")
_STDERR: Final = 2
_NO_SUMMARY: Final = 256
"""Stands for the exit code of a process that ended with 0 before its run did."""


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
    patience_s: float = 30.0,
) -> list[dict[str, Any]]:
    """Run ``workers`` processes of ``streamml run`` until all have ended; returns their summaries.

    Args:
        arguments: of ``streamml run``, by the worker's number.
        stop: ends them all in good order.
        started: hears the number and process id of every process that starts.
        quiet: whether what workers print is dropped, for a live view.
        patience_s: how long a worker may take to end when it is asked to; then it is killed.

    Raises:
        FatalError: a worker crashed again and again; the others were stopped in good order.
        ConfigError: a worker ended with exit code 2, after it said why.
        Fenced: a worker was fenced.
    """
    children = [
        _Child(number, list(arguments(number)), restarts or Restarts(), stop, started, quiet, patience_s)
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
        patience_s: float,
    ) -> None:
        self._number = number
        self._arguments = arguments
        self._restarts = restarts
        self._stop = stop
        self._started = started
        self._patience_s = patience_s
        # Standard output is the supervisor's own.
        self._output = subprocess.DEVNULL if quiet else _STDERR
        self._crashes: deque[float] = deque()
        self.summaries: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._guard, name=f"streamml-worker-{number}")

    def _guard(self) -> None:
        try:
            self._watch()
        except Exception as error:  # noqa: BLE001  raised by `supervise` when all have ended
            self.error = error
            self._stop.set()

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
            _LOG.warning("Worker %d %s; starting it again in %.1f s.", self._number, _how(code), delay)
            self._stop.wait(delay)

    def _run_once(self) -> int:
        with tempfile.TemporaryDirectory(prefix="streamml-") as folder:
            summary = Path(folder) / "summary.json"
            code = self._wait_for([*self._arguments, "--summary-file", str(summary)])
            if code == 0 and summary.exists():
                self.summaries.append(json.loads(summary.read_text()))
            elif code == 0:
                return _NO_SUMMARY
        return code

    def _wait_for(self, arguments: list[str]) -> int:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamml", *arguments],
            stdout=self._output,
            stderr=self._output,
            # Ctrl-C in a terminal goes to the whole group; the supervisor alone decides when a worker ends.
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509  one system call, no Python lock
        )
        self._started(self._number, process.pid)
        ended = threading.Event()
        ender = threading.Thread(target=self._end_when_asked, args=(process, ended))
        ender.start()
        code = process.wait()
        ended.set()
        ender.join()
        return code

    def _end_when_asked(self, process: subprocess.Popen[bytes], ended: threading.Event) -> None:
        while not ended.wait(0.05):
            if not self._stop.is_set():
                continue
            process.send_signal(signal.SIGTERM)
            if not ended.wait(self._patience_s):
                _LOG.error("Worker %d did not end within %.0f s; it is killed.", self._number, self._patience_s)
                process.kill()
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
            f"Worker {self._number} crashed {len(self._crashes)} times within {self._restarts.window_s:.0f} s; the last "
            f"time it {_how(code)}. Its log above says why; nothing is lost: what it had not committed will be read again."
        )


def _how(code: int) -> str:
    """How a process ended, in words."""
    if code == _NO_SUMMARY:
        return "ended with code 0 in the middle of its run"
    return f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}"
