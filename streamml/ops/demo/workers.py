"""The demo's workers: processes that are started again when they are killed."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from streamml.errors import StreamMLError
from streamml.ops.supervise import supervise
from streamml.settings.settings import Settings


class Workers:
    """Processes of one group, supervised on a thread."""

    def __init__(self, topology: str, settings: Settings, group: str, count: int) -> None:
        """
        Args:
            topology: as the command line takes it.
            settings: of broker and Redis.
        """
        self._arguments = ["run", topology, "--brokers", settings.brokers]
        self._arguments += ["--redis-url", settings.redis.url, "--group", group]
        self._count = count
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="streamml-demo-workers")
        self._summaries: list[dict[str, Any]] = []
        self.crash: StreamMLError | None = None
        """Why there are none any more, if that was nobody's wish."""
        self.pids: dict[int, int] = {}
        """By number."""

    def start(self) -> None:
        self._thread.start()

    def kill(self) -> None:
        """SIGKILL for the first of them."""
        for pid in list(self.pids.values())[:1]:
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> list[dict[str, Any]]:
        """End them in good order, if they run; the summary of each."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        return self._summaries

    def _work(self) -> None:
        try:
            self._summaries = supervise(
                lambda number: self._arguments, self._count, self._ended, started=self.pids.__setitem__, quiet=True
            )
        except StreamMLError as error:
            self.crash = error
