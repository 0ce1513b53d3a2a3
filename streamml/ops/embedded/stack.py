"""Kafka and Redis for development, in the background: one stack per folder, found again by its state file.

The state file says what was started: ports, and for each process its id and when it started. Ids are used again by the
system, so a process is ours only if both agree; nothing else is ever ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from streamml.errors import ConfigError
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.process import free_port, listening, send, started_at, writable
from streamml.ops.embedded.redis import EmbeddedRedis

DEFAULT_FOLDER: Final = Path(".streamml") / "dev"
_FORMAT: Final = 1
_END_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Part:
    """One server of the stack.

    Args:
        port: for clients; kept from start to start.
        pid, started_at: its process, ``None`` while it is down.
    """

    port: int
    pid: int | None = None
    started_at: str | None = None

    @property
    def running(self) -> bool:
        return self.pid is not None and self.started_at is not None and started_at(self.pid) == self.started_at


@dataclass(frozen=True, slots=True)
class State:
    """What a state file says."""

    kafka: Part
    redis: Part
    controller_port: int

    @property
    def brokers(self) -> str:
        return f"127.0.0.1:{self.kafka.port}"

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis.port}/0"

    def document(self) -> dict[str, Any]:
        """As it is printed for programs."""
        return {
            "brokers": self.brokers,
            "redis_url": self.redis_url,
            "kafka": {"running": self.kafka.running, "pid": self.kafka.pid, "port": self.kafka.port},
            "redis": {"running": self.redis.running, "pid": self.redis.pid, "port": self.redis.port},
        }


class Stack:
    """The servers of one folder.

    Args:
        folder: state, data and logs; made if it is missing.
    """

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        self._folder = folder.absolute()
        self._file = self._folder / "state.json"

    @property
    def folder(self) -> Path:
        """Absolute."""
        return self._folder

    def up(
        self,
        progress: Callable[[str], None] = lambda text: None,
        *,
        kafka_port: int | None = None,
        redis_port: int | None = None,
    ) -> State:
        """Start what is not running; returns when both answer.

        Args:
            progress: hears what takes long.
            kafka_port, redis_port: ``None`` takes those of the last start, or free ones.

        Raises:
            ConfigError: a port is taken, the folder cannot be written, or a server does not start; what did start is up.
        """
        with self._locked():
            state = self._ports(self._read(), kafka_port, redis_port)
            if not state.redis.running:
                progress("Starting Redis")
                redis = EmbeddedRedis(self._folder / "redis", port=state.redis.port, progress=progress, outlive=True)
                redis.start()
                state = self._write(replace(state, redis=_part(redis.port, redis.let_go())))
            if not state.kafka.running:
                progress("Starting Kafka")
                kafka = EmbeddedKafka(
                    self._folder / "kafka",
                    port=state.kafka.port,
                    controller_port=state.controller_port,
                    progress=progress,
                    outlive=True,
                )
                kafka.start()
                state = self._write(replace(state, kafka=_part(state.kafka.port, kafka.let_go())))
            return state

    def down(self) -> list[str]:
        """End what this stack started, and nothing else; returns the names of what was running."""
        if not self._file.exists():
            # Asking in the wrong folder must leave nothing there.
            return []
        with self._locked():
            state = self._read()
            if state is None:
                return []
            ended = [name for name in ("kafka", "redis") if _end(getattr(state, name))]
            self._write(replace(state, kafka=Part(state.kafka.port), redis=Part(state.redis.port)))
            return ended

    def status(self) -> State | None:
        """What is up now; ``None`` where nothing was ever started."""
        return self._read()

    def _ports(self, known: State | None, kafka_port: int | None, redis_port: int | None) -> State:
        state = known or State(Part(free_port()), Part(free_port()), free_port())
        if kafka_port is not None and kafka_port != state.kafka.port:
            state = replace(state, kafka=_moved("Kafka", state.kafka, kafka_port))
        if redis_port is not None and redis_port != state.redis.port:
            state = replace(state, redis=_moved("Redis", state.redis, redis_port))
        taken = state.controller_port in (state.kafka.port, state.redis.port) or listening(state.controller_port)
        if not state.kafka.running and taken:
            state = replace(state, controller_port=free_port())
        return self._write(state)

    def _read(self) -> State | None:
        try:
            document = json.loads(self._file.read_text())
            if document.pop("format") != _FORMAT:
                raise ValueError
            kafka, redis = Part(**document["kafka"]), Part(**document["redis"])
            return State(kafka, redis, document["controller_port"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._file} is no state of this version; end what it names by hand, then remove {self._folder}."
            ) from error

    def _write(self, state: State) -> State:
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps({"format": _FORMAT, **asdict(state)}, indent=2))
        partial.replace(self._file)
        return state

    @contextmanager
    def _locked(self) -> Iterator[None]:
        writable(self._folder)
        with (self._folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"Another `streamml dev` is at work in {self._folder}; wait until it has finished."
                ) from None
            yield


def _part(port: int, pid: int) -> Part:
    return Part(port, pid, started_at(pid))


def _moved(name: str, part: Part, port: int) -> Part:
    if part.running:
        raise ConfigError(f"{name} is running on port {part.port}; `streamml dev down` first, then start it on {port}.")
    return Part(port)


def _end(part: Part) -> bool:
    """End a process in good order, after a while by force; whether it was running."""
    if not part.running:
        return False
    assert part.pid is not None
    send(part.pid, signal.SIGTERM)
    deadline = time.monotonic() + _END_S
    while part.running and time.monotonic() < deadline:
        _reap(part.pid)
        time.sleep(0.05)
    if part.running:
        send(part.pid, signal.SIGKILL)
    return True


def _reap(pid: int) -> None:
    """Where this process is the parent, an ended child stays until it is waited for."""
    with suppress(ChildProcessError):  # Another process is its parent.
        os.waitpid(pid, os.WNOHANG)
