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
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from streamml.errors import ConfigError, FatalError

_PR_SET_PDEATHSIG: Final = 1
# Found here, as looking for it takes a lock of the loader's, which nobody may ever give back in a child of many threads.
_PRCTL: Final = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_PATIENCE_S: Final = 15.0
_given: set[int] = set()
"""Ports that `free_port` has told already; who asked may not listen there yet."""


def free_port() -> int:
    """A port on loopback that nobody has now, that no call before got, and that the system gives to no connection before it is listened on.

    Linux gives connections the ports from 32768 on, others those from 49152 on.

    Raises:
        FatalError: there is none.
    """
    for port in random.sample(range(20_000, 32_000), 1000):
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):  # Somebody has it: the next one may be free.
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port
    raise FatalError("No port from 20000 to 32000 on loopback is free; end what has them, then start again.")


def listening(port: int) -> bool:
    """Whether somebody listens on a port on loopback."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"{folder} is no folder, or lies in a file; choose another one.") from error
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror}); make room, or choose another folder."
        ) from error


def die_with_parent() -> None:
    """Run in a child before its program: on Linux it gets SIGTERM when its parent is gone, however that ended."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Server:
    """A server as a child process.

    Args:
        outlive: whether it stays when this process ends.
    """

    def __init__(self, *, outlive: bool) -> None:
        self._outlive = outlive
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None else self._process.pid

    def let_go(self) -> int:
        """Leave the process to itself; returns its id."""
        assert self._process is not None
        process, self._process = self._process, None
        # Otherwise `subprocess` warns that nobody waits for it.
        process.returncode = 0
        return process.pid

    def kill(self) -> None:
        """End it as a crash does (SIGKILL)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order; after 15 s by force."""
        self._end(signal.SIGTERM)

    def _run(self, command: Sequence[str], log: Path) -> None:
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=None if self._outlive else die_with_parent,  # noqa: PLW1509  one system call, no Python lock
            )

    @property
    def _running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def started_at(pid: int) -> str | None:
    """When a process started, in the system's own notation; ``None`` where there is none. With the id it names a process
    for good, while ids are used again."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        # The name may hold blanks and parentheses; fields are counted behind its last one.
        fields = stat[stat.rindex(")") + 2 :].split()
        return None if fields[0] == "Z" else fields[19]
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607
    return shown.stdout.strip() or None


def send(pid: int, how: signal.Signals) -> None:
    """Signal a process; nothing happens where it is gone."""
    with contextlib.suppress(ProcessLookupError):  # It is gone, as was wanted.
        os.kill(pid, how)
