"""A process that is started again whenever it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from streamml.ops.embedded.process import die_with_parent

_REST_S: Final = 0.2
_PATIENCE_S: Final = 15.0


class Kept:
    """Keeps one command running, quietly.

    Args:
        command: program and arguments.
        environment: added to this process's.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._environment = {**os.environ, **environment}
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.thread = threading.Thread(target=self._keep, name="streamml-demo-kept", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        with self._lock:
            return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL; it is started again. Returns when it is dead."""
        killed = self._process
        self._signal(signal.SIGKILL)
        if killed is not None:
            killed.wait()

    def stop(self) -> None:
        """End it in good order, or after a while by force."""
        self._ended.set()
        self._signal(signal.SIGTERM)
        self.thread.join(_PATIENCE_S)
        self._signal(signal.SIGKILL)
        self.thread.join()

    def _signal(self, number: int) -> None:
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(number)

    def _keep(self) -> None:
        while self._begin():
            assert self._process is not None
            self._process.wait()
            self._ended.wait(_REST_S)

    def _begin(self) -> bool:
        with self._lock:
            if self._ended.is_set():
                return False
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  one system call, no Python lock
            )
            self.starts += 1
            return True
