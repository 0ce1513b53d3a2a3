"""What the embedded servers share: ports, folders, and processes that end when they should."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streamml.errors import ConfigError

_PR_SET_PDEATHSIG: Final = 1
_LINUX: Final = sys.platform == "linux"
# Loaded before any fork: a child of a process with threads must not load libraries.
_LIBC: Final = ctypes.CDLL(None) if _LINUX else None
_PORTS: Final = range(20_000, 32_000)
_LOG_BYTES: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Process:
    """One process for good: ids are used again, but not together with the time of the start.

    Args:
        pid: its id.
        started_at: see `started_at`.
    """

    pid: int
    started_at: str

    @property
    def running(self) -> bool:
        now = started_at(self.pid)
        if now is None:
            # A child of ours that has ended stays until somebody waits for it.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
        return now == self.started_at

    def end(self, how: signal.Signals, patience_s: float) -> None:
        """Signal it and wait until it is gone; by force where it takes longer than ``patience_s``."""
        self._send(how)
        deadline = time.monotonic() + patience_s
        while self.running:
            if time.monotonic() > deadline:
                self._send(signal.SIGKILL)
            time.sleep(0.02)

    def _send(self, how: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, how)


def spawn(command: Sequence[str], log: Path, *, outlive: bool) -> Process:
    """Start a server in a session of its own, so that Ctrl-C does not reach it; what it says is added to ``log``.

    Args:
        command: program and arguments, paths absolute; it runs in the log's folder.
        log: begun anew when it has grown past 4 MB; the one before is kept as ``.old``.
        outlive: whether it stays when this process ends. If not, Linux ends it when the *thread* that called this is gone,
            be it by SIGKILL.
    """
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".log.old"))
    with log.open("ab") as out:
        child = subprocess.Popen(
            command,
            cwd=log.parent,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=None if outlive or not _LINUX else _dying_with(os.getpid()),  # noqa: PLW1509  two system calls
        )
    # From here on `Process` waits for it; without this, Popen would warn that nobody does.
    child.returncode = 0
    return Process(child.pid, started_at(child.pid) or "")


def _dying_with(parent: int) -> Callable[[], None]:
    def ask() -> None:
        assert _LIBC is not None
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def started_at(pid: int) -> str | None:
    """When a process started, in the system's own notation; ``None`` where there is none, or it has ended."""
    if not _LINUX:
        return _started_at_by_ps(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # The name may hold blanks and parentheses; fields are counted behind its last one.
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def _started_at_by_ps(pid: int) -> str | None:
    asked = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    shown = subprocess.run(
        asked, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    )
    state, _, started = shown.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()


def free_port() -> int:
    """A port on loopback that nobody has now; not one of those that systems hand to clients, who could have it next."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311  no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listening(port: int) -> bool:
    """Whether somebody listens on a port on loopback."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def unclaimed(*ports: int) -> None:
    """Check ports before a server wants them.

    Raises:
        ConfigError: somebody listens there.
    """
    taken = [port for port in ports if listening(port)]
    if taken:
        raise ConfigError(
            [f"Port {port} on 127.0.0.1 is taken; stop what listens there or choose another port." for port in taken]
        )


def writable(folder: Path) -> None:
    """Make a folder.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / ".writable"
        trial.write_bytes(b"x" * 4096)
        trial.unlink()
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror}); make room, or choose another folder."
        ) from error
