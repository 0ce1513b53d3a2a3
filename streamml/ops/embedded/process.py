"""What the embedded servers share: ports, folders, and processes that end when they should."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from streamml.errors import ConfigError

_PR_SET_PDEATHSIG: Final = 1


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end(process: subprocess.Popen[bytes] | None, how: signal.Signals, patience_s: float = 15.0) -> None:
    """End a child and wait for it; by force where it takes longer than ``patience_s``."""
    if process is None:
        return
    process.send_signal(how)
    try:
        process.wait(timeout=patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def let_go(process: subprocess.Popen[bytes]) -> int:
    """The id of a child that is to outlive this process; `subprocess` would warn that nobody waits for it."""
    process.returncode = 0
    return process.pid


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
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)
