"""A stable identity for each worker of a machine, so that one that comes back gets its partitions at once.

A static member of a group that is killed and started again with the same identity goes on in a fraction of a second; a
dynamic one waits for the dead member's session to end. The second process with one identity fences the first for good, so an
identity is claimed by a lock on a file, which the kernel lets go when its process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from streamml.errors import SettingsError

_MOST: Final = 1000


@dataclass(slots=True)
class Identity:
    """A claimed identity; keep it as long as the worker lives.

    Args:
        name: unique in the group.
        stable: whether the broker may know it; without it, a restart waits for the session to end.
    """

    name: str
    stable: bool
    _lock: IO[str] | None = None

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()


def claim(brokers: str, group: str, worker_id: str | None) -> Identity:
    """Claim ``worker_id``, or the first identity that is free on this machine.

    Raises:
        SettingsError: another process of this machine has ``worker_id``.
    """
    host = socket.gethostname()
    try:
        folder = _folder(brokers, group)
        if worker_id is not None:
            lock = _locked(folder / f"{worker_id}.lock")
            if lock is None:
                raise SettingsError(
                    f"Another process on this machine runs as worker {worker_id!r} of group {group!r}; "
                    "stop it, or give this one another worker_id."
                )
            return Identity(worker_id, True, lock)
        for number in range(_MOST):
            lock = _locked(folder / f"{host}-{number}.lock")
            if lock is not None:
                return Identity(f"{host}-{number}", True, lock)
    except OSError:
        pass  # No place for locks: nothing here can vouch for an identity.
    return Identity(worker_id or f"{host}-{os.getpid()}", worker_id is not None)


def _folder(brokers: str, group: str) -> Path:
    home = (
        os.environ.get("STREAMML_STATE_DIR")
        or os.environ.get("XDG_STATE_HOME")
        or str(Path.home() / ".local" / "state")
    )
    cluster = hashlib.sha256(f"{brokers}\n{group}".encode()).hexdigest()[:16]
    folder = Path(home) / "streamml" / "workers" / cluster
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _locked(path: Path) -> IO[str] | None:
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
