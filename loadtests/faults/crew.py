"""Worker processes: started again whenever they end, however they end, until they are dismissed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from streamml.errors import ConfigError
from streamml.ops.embedded.process import die_with_parent

_REST_S = 0.2


class Slot:
    """One place in the crew, and the thread that keeps it filled."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._command = command
        self._environment = {**os.environ, **environment}
        self._log = log
        self._dismissed = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self.codes: Counter[int] = Counter()
        self.thread = threading.Thread(target=self._keep_filled, name=f"chaos-{log.stem}")
        self.thread.start()

    def send(self, how: signal.Signals) -> None:
        """Signal the process that is there now; `subprocess` makes sure that it is still ours."""
        if self._process is not None:
            self._process.send_signal(how)

    def dismiss(self) -> None:
        """Ask the worker to leave in good order, for good."""
        self._dismissed.set()
        self.send(signal.SIGTERM)

    def join(self, patience_s: float) -> None:
        """Wait for a dismissed worker; by force where it takes longer."""
        self.thread.join(patience_s)
        if self.thread.is_alive():
            self.send(signal.SIGKILL)
            self.thread.join()

    def last_words(self) -> str:
        """The last lines of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-5:])

    def _keep_filled(self) -> None:
        while not self._dismissed.is_set():
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=die_with_parent,  # noqa: PLW1509  one system call, no Python lock
                )
            if self._dismissed.is_set():  # It was asked to leave before it was there to hear it.
                self.send(signal.SIGTERM)
            self.codes[self._process.wait()] += 1
            self._dismissed.wait(_REST_S)


class Crew:
    """All workers of a run.

    Args:
        folder: for their logs.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self._command, self._environment, self._folder = command, environment, folder
        self._lock = threading.Lock()
        self._gone: list[Slot] = []
        self._slots: list[Slot] = []

    @property
    def slots(self) -> list[Slot]:
        with self._lock:
            return list(self._slots)

    @property
    def codes(self) -> Counter[int]:
        """How often workers ended with which exit code; a negative one is a signal."""
        with self._lock:
            return sum((slot.codes for slot in [*self._slots, *self._gone]), Counter[int]())

    def hire(self) -> None:
        with self._lock:
            number = len(self._slots) + len(self._gone)
            self._slots.append(Slot(self._command, self._environment, self._folder / f"worker-{number}.log"))

    def dismiss(self, slot: Slot) -> None:
        """One worker leaves for good."""
        with self._lock:
            self._slots.remove(slot)
            self._gone.append(slot)
        slot.dismiss()

    def end(self, patience_s: float) -> None:
        """All leave in good order."""
        for slot in self.slots:
            slot.send(signal.SIGCONT)
            self.dismiss(slot)
        for slot in self._gone:
            slot.join(patience_s)

    def check(self) -> None:
        """Whether every worker can start at all.

        Raises:
            ConfigError: one ended because of its settings; it would do so for ever.
        """
        for slot in self.slots:
            if slot.codes[2]:
                raise ConfigError(f"A worker could not start: {slot.last_words()}")
