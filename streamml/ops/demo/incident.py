"""Bad features, and the way back: what somebody on call would type, as processes of the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from streamml.errors import FatalError
from streamml.settings.settings import Settings

_MARGIN_S: Final = 5.0
_PATIENCE_S: Final = 10.0
Stage = Literal["none", "breaking", "broken", "replaying", "compared", "publishing", "published"]


@dataclass(slots=True)
class CommandLine:
    """Runs commands of streamml against one stack.

    Args:
        settings: of the stack.
        group: consumer group of the workers.
        tell: hears every command before it runs, as one would type it.
    """

    settings: Settings
    group: str
    tell: Callable[[str], None] = lambda text: None
    _running: subprocess.Popen[str] | None = field(default=None, init=False)
    _ended: bool = field(default=False, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __call__(self, *arguments: str) -> dict[str, Any]:
        """Run one; its JSON.

        Raises:
            FatalError: it failed, with what it said last; or everything was ended.
        """
        self.tell("streamml " + " ".join(arguments))
        process = self._begin(arguments)
        stdout, stderr = process.communicate()
        if process.returncode:
            said = stderr.strip().splitlines() or ["nothing"]
            raise FatalError(f"`streamml {' '.join(arguments)}` ended with {process.returncode} and said: {said[-1]}")
        answer: dict[str, Any] = json.loads(stdout)
        return answer

    def end(self) -> None:
        """End the one that runs, if any; none is begun from now on."""
        with self._lock:
            self._ended = True
        if self._running is not None:
            self._running.terminate()
            try:
                self._running.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._running.kill()

    def _begin(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        places = {
            "STREAMML_BROKERS": self.settings.brokers,
            "STREAMML_REDIS_URL": self.settings.redis.url,
            "STREAMML_GROUP": self.group,
        }
        with self._lock:
            if self._ended:
                raise FatalError(f"`streamml {' '.join(arguments)}` was not begun any more.")
            self._running = subprocess.Popen(
                [sys.executable, "-m", "streamml", *arguments, "--json"],
                env={**os.environ, **places},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        return self._running


class Incident:
    """One incident: `break_features`, `mend`, `publish`, in that order; what is out of order is not done.

    Each takes seconds and runs on a thread of its own; `stage` says how far it is, and `stretch` has the options of the command line
    for what was scored again.
    """

    def __init__(self, streamml: CommandLine, topology: str, feature_set: str, broken: Path, page: Path) -> None:
        """
        Args:
            topology: as the command line takes it.
            feature_set: name of the set that is loaded wrong.
            broken: the wrong file.
            page: where the comparison's page is written.
        """
        self._streamml = streamml
        self.topology = topology
        self._set = feature_set
        self._broken = broken
        self.page = page
        self._work: threading.Thread | None = None
        self._from_s = 0.0
        self.stretch: tuple[str, ...] = ()
        self.stage: Stage = "none"
        self.error: Exception | None = None
        self.replay = 0
        self.compared: Mapping[str, Any] = {}
        self.published: Mapping[str, Any] = {}

    def break_features(self) -> None:
        """Begin to load the wrong file; workers read it from then on."""
        if self.stage in ("none", "published"):
            self.stage = "breaking"
            self._begin(self._break)

    def mend(self) -> None:
        """Begin to go back to the features of before, to score what came meanwhile again, and to compare."""
        if self.stage == "broken":
            self.stage = "replaying"
            self._begin(self._mend)

    def publish(self) -> None:
        """Begin to publish what changed."""
        if self.stage == "compared":
            self.stage = "publishing"
            self._begin(self._publish)

    @property
    def busy(self) -> bool:
        """Whether something was begun and has not ended."""
        return self.stage in ("breaking", "replaying", "publishing")

    @property
    def waits(self) -> bool:
        """Whether the next step is somebody's to begin."""
        return self.stage in ("broken", "compared")

    def told(self) -> dict[str, Any]:
        """How it stands, as JSON."""
        return {
            "stage": self.stage,
            "replay": self.replay,
            "compared": self.compared,
            "page": str(self.page),
            "published": self.published,
        }

    def end(self) -> None:
        """End what was begun; what a replay has done until then is on the broker."""
        self._streamml.end()
        if self._work is not None:
            self._work.join()

    def wait(self) -> None:
        """Until what was begun has ended.

        Raises:
            StreamMLError: it failed.
        """
        if self._work is not None:
            self._work.join()
        if self.error is not None:
            raise self.error

    def _begin(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001  raised by `wait`
                self.error = error

        self._work = threading.Thread(target=run, name="streamml-demo-incident", daemon=True)
        self._work.start()

    def _break(self) -> None:
        self._from_s = time.time()
        declared = f"{self.topology}/topology.py:{self._set}"
        self._streamml("features", "load", str(self._broken), "--set", declared)
        self.stage = "broken"

    def _mend(self) -> None:
        self._streamml("features", "rollback", self._set)
        # A worker that had looked the pointer up just before may be a batch behind.
        self.stretch = ("--from", _utc(self._from_s - _MARGIN_S), "--to", _utc(time.time()))
        self.replay = self._streamml("replay", "start", self.topology, *self.stretch, "--yes")["number"]
        self.compared = self._streamml(*self._of_replay("diff"), "--page", str(self.page))
        self.stage = "compared"

    def _publish(self) -> None:
        self.published = self._streamml(*self._of_replay("publish"), "--changed-only", "--yes")
        self.stage = "published"

    def _of_replay(self, command: str) -> Sequence[str]:
        return ("replay", command, self.topology, str(self.replay))


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
