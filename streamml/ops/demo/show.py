"""The demo from setting the stage to the summary. Everything it starts ends with it."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.compose.locate import Located, locate_topology
from streamml.engine.feature_log import LogSchema
from streamml.errors import ConfigError, FatalError, StreamMLError
from streamml.ops.demo.feeder import Feeder
from streamml.ops.demo.incident import CommandLine, Incident
from streamml.ops.demo.judge import Judge
from streamml.ops.demo.kept import Kept
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.features import load_file
from streamml.ops.summaries import merged
from streamml.ops.supervise import supervise
from streamml.ops.topics import create_topics
from streamml.settings.settings import RedisSettings, Settings
from streamml.topology.steps import FeatureLookup
from streamml.topology.topology import Topology

FAULTS: Final = ("kill", "poison", "slow", "features", "app")
_TOPOLOGY: Final = "flight_delay"
_PARTITIONS: Final = 4
_PATIENCE_S: Final = 60.0
_PAUSE_MS: Final = 3000
_LATELY_S: Final = 1.0
_PAGE: Final = Path(tempfile.gettempdir()) / "streamml-demo-replay.html"
_OF_INCIDENT: Final = {"features": Incident.break_features, "mend": Incident.mend, "publish": Incident.publish}


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What is shown.

    Args:
        events: how many departures; ``None``: all of October to December.
        rate: events per second.
        workers: processes in the group.
        faults: faults that come by themselves, each at its place in the stream.
        fast: whether the features app follows the arrivals, so that predictions know of the last hours.
        brokers, redis_url: servers to use; ``None``: embedded ones, started and ended by the demo.
    """

    events: int | None = None
    rate: float = 500.0
    workers: int = 1
    faults: tuple[str, ...] = ()
    fast: bool = True
    brokers: str | None = None
    redis_url: str | None = None


@dataclass(slots=True)
class Fault:
    """A fault that happened.

    Args:
        at_s: seconds since the first event.
        recovered_s: seconds from the fault to the first prediction of an event that was produced after it.
    """

    name: str
    at_s: float
    moment_ms: float
    recovered_s: float | None = None


class Show:
    """One demo. Use it in a ``with`` statement; `start`, then ask for `snapshot` until it is `over`, then `finish`."""

    def __init__(self, options: DemoOptions, progress: Callable[[str], None], page: Path = _PAGE) -> None:
        """
        Args:
            progress: hears what is done at the start.
            page: where an incident's comparison is written.
        """
        self._options = options
        self._progress = progress
        self._page = page
        self._servers: list[EmbeddedKafka | EmbeddedRedis] = []
        self._stop = threading.Event()
        self._pids: dict[int, int] = {}
        self._summaries: list[dict[str, Any]] = []
        self._crash: StreamMLError | None = None
        self._scripted = [
            (place, name)
            for name, place in zip(FAULTS, (0.25, 0.5, 0.75, 0.3, 0.4), strict=True)
            if name in options.faults
        ]
        self._scripted += [(0.6, "mend"), (0.6, "publish")] if "features" in options.faults else []
        self._scripted.sort()
        self._ended_s: float | None = None
        self._group = f"demo-{uuid.uuid4().hex[:8]}"
        self.leaving = False
        self.faults: list[Fault] = []
        self._folder = Path(tempfile.mkdtemp(prefix="streamml-demo-"))
        self._app: Kept | None = None

    def __enter__(self) -> Show:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self) -> None:
        """Set the stage and begin.

        Raises:
            ConfigError: the demo's files are not here, or a server cannot be started.
        """
        located, stream_module, quality_module = _pieces()
        topology = located.found
        self._settings = Settings(
            brokers=self._options.brokers or self._kafka(),
            redis=RedisSettings(url=self._options.redis_url or self._redis()),
        )
        self._progress("Preparing the flights of October to December 2013, and what was known before each")
        count = self._options.events or sys.maxsize
        self._stream = stream_module.prepare(count)
        self._load_features(topology)
        create_topics(topology, self._settings, _PARTITIONS, -1)
        beside = self._start_app(stream_module) if self._options.fast else {}
        self._quality = quality_module.Quality(self._stream.truth)
        self._judge = Judge(
            self._settings.brokers,
            topology.destination,
            topology.dead_letters.topic,
            self._stream.is_right,
            self._quality.add,
            self._explained(topology) if self._options.fast else None,
        )
        self._feeder = Feeder(
            self._settings.brokers,
            topology.source.topics[0],
            self._stream.keys,
            self._stream.values,
            rate=self._options.rate,
            poison=stream_module.poison,
            on_produced=self._judge.produced,
            beside=beside,
        )
        self._workers = threading.Thread(target=self._work, name="streamml-demo-workers")
        self._progress("Starting the worker")
        self._judge.thread.start()
        self._workers.start()
        self._wait_for_the_group(self._group)
        if self._options.fast:
            self._wait_for_the_group(self._app_group)
        broken = self._folder / "broken.parquet"
        broken_set = self._stream.write_broken_features(broken)
        self.streamml = CommandLine(self._settings, self._group)
        self.incident = Incident(self.streamml, f"topologies/{_TOPOLOGY}", broken_set, broken, self._page)
        self._begun = time.time()
        self._feeder.thread.start()

    def fault(self, name: str) -> None:
        """Do harm, or good.

        Args:
            name: ``kill`` a worker or the features ``app`` (SIGKILL), switch ``poison`` on or off (1 % of records), ``slow`` Redis for 3 s, load wrong
                ``features``; ``mend`` them, and score again what came meanwhile; ``publish`` the corrections.
        """
        moment = time.time()
        if name == "kill":
            for pid in list(self._pids.values())[:1]:
                os.kill(pid, signal.SIGKILL)
        elif name == "poison":
            self._feeder.poisoning = not self._feeder.poisoning
        elif name == "app" and self._app is not None:
            self._app.kill()
        elif name == "slow":
            self._pause_redis()
        elif name in _OF_INCIDENT:
            _OF_INCIDENT[name](self.incident)
            return
        if name != "poison" or self._feeder.poisoning:
            self.faults.append(Fault(name, moment - self._begun, moment * 1000))

    def tick(self) -> None:
        """To be called some times a second: scripted faults, recovery times, a crash of the workers."""
        if self._crash is not None:
            raise self._crash
        if self.incident.error is not None:
            raise self.incident.error
        done = self.sent_share
        if self._scripted and done >= self._scripted[0][0] and self._may(self._scripted[0][1]):
            self.fault(self._scripted.pop(0)[1])
        if self._feeder.poisoning and "poison" in self._options.faults and done >= 0.7:
            self._feeder.poisoning = False
        for fault in self.faults:
            if fault.recovered_s is None and self._judge.newest_ms > fault.moment_ms:
                fault.recovered_s = round(time.time() - fault.moment_ms / 1000, 2)

    def _may(self, name: str) -> bool:
        """Whether what is scripted makes sense now: features are mended when they have done harm."""
        if name == "mend" and self._feeder.thread.is_alive() and not self._judge.verdict(under_way=True).wrong:
            return False
        return not self.incident.busy

    def end_stream(self) -> None:
        """Produce nothing more, and wait for no further step of an incident."""
        self._scripted.clear()
        self.leaving = True
        self._feeder.stop()

    @property
    def sent_share(self) -> float:
        """How much of the stream is produced, 0 to 1."""
        return self._feeder.sent / max(1, len(self._stream))

    @property
    def over(self) -> bool:
        """Whether every event has ended, and no incident is open.

        Raises:
            FatalError: nothing has moved for a minute.
        """
        if self._feeder.thread.is_alive():
            return False
        incident = self.incident
        if incident.busy or self._scripted or (incident.waits and not self.leaving):
            self._judge.progress_at = time.monotonic()
            return False
        verdict = self._judge.verdict()
        if (
            verdict.lost == 0
            and not self._judge.undecided
            and verdict.corrected >= incident.published.get("written", 0)
        ):
            if self._ended_s is None:
                self._ended_s = time.time() - self._begun
            return True
        if time.monotonic() - self._judge.progress_at > _PATIENCE_S:
            raise FatalError(f"Nothing has moved for {_PATIENCE_S:.0f} s, and {verdict.lost} events are open.")
        return False

    def snapshot(self) -> dict[str, Any]:
        """What can be said now, for a live view."""
        now = time.time()
        lately = [latency for moment, latency in list(self._judge.lately) if moment > now - 5]
        verdict = self._judge.verdict(under_way=True)
        return {
            "seconds": now - self._begun,
            "sent": self._feeder.sent,
            "events": len(self._stream),
            "leaving": self.leaving,
            "rate": len(lately) / 5,
            "lag": verdict.lost,
            "latency_ms": {f"p{share}": float(np.percentile(lately, share)) for share in (50, 95, 99)}
            if lately
            else {},
            "referee": verdict.document(),
            "quality": self._quality.figures(),
            "fast": self._fast(lately=True),
            "recent": list(self._judge.recent),
            "faults": list(self.faults),
            "poisoning": self._feeder.poisoning,
            "workers": dict(self._pids),
            "incident": self.incident.told(),
        }

    def finish(self) -> dict[str, Any]:
        """End the workers in good order; returns the summary."""
        self._feeder.stop()
        seconds = self._ended_s or time.time() - self._begun
        self._stop.set()
        self._workers.join()
        verdict = self._judge.verdict()
        latency = self._judge.latency
        told = merged(self._summaries)
        return {
            "consumed": verdict.produced,
            "departures": verdict.produced - verdict.poison,
            "predictions": verdict.predicted,
            "dead_letters": verdict.dead_letters,
            "filtered": 0,
            "seconds": round(seconds, 2),
            "events_per_s": round(verdict.produced / seconds),
            "latency_ms": {f"p{share}": latency.percentile(share / 100) for share in (50, 95, 99)},
            "worker_latency_ms": told["latency_ms"],
            "mean_batch_rows": told["mean_batch_rows"],
            "quality": self._quality.figures(),
            "referee": verdict.document(),
            "incident": self.incident.told(),
            "fast_features": self._fast(lately=False),
            "faults": [
                {"fault": one.name, "at_s": round(one.at_s, 2), "recovered_s": one.recovered_s} for one in self.faults
            ],
        }

    def close(self) -> None:
        """End everything that is still there."""
        self._stop.set()
        if hasattr(self, "incident"):
            self.incident.end()
        for name in ("_feeder", "_judge"):
            part = getattr(self, name, None)
            if part is not None and part.thread.is_alive():
                part.stop()
        if getattr(self, "_workers", None) is not None and self._workers.is_alive():
            self._workers.join()
        if self._app is not None:
            self._app.stop()
        for server in reversed(self._servers):
            server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _kafka(self) -> str:
        self._progress("Starting Kafka")
        kafka = EmbeddedKafka(self._folder / "kafka", progress=self._progress)
        self._servers.append(kafka)
        kafka.start()
        return kafka.bootstrap_servers

    def _redis(self) -> str:
        self._progress("Starting Redis")
        redis = EmbeddedRedis(self._folder / "redis", progress=self._progress)
        self._servers.append(redis)
        redis.start()
        return redis.url

    def _start_app(self, stream_module: Any) -> dict[int, list[tuple[str, bytes, bytes]]]:
        """Start what keeps the recent features fresh; returns the arrivals, by the departure that they come before."""
        self._progress("Starting the Faust app that follows the arrivals")
        topic = stream_module.create_arrivals_topics(self._settings)
        self._app_group = f"{self._group}-app"
        places = {"STREAMML_BROKERS": self._settings.brokers, "STREAMML_REDIS_URL": self._settings.redis.url}
        module = f"topologies.{_TOPOLOGY}.features_app"
        self._app = Kept([sys.executable, "-m", module, "--group", self._app_group], places)
        self._app.thread.start()
        arrivals = self._stream.arrivals_before()
        return {event: [(topic, *record) for record in records] for event, records in arrivals.items()}

    def _explained(self, topology: Topology) -> tuple[str, LogSchema, Any]:
        assert topology.feature_log is not None
        return topology.feature_log.topic, LogSchema(topology.feature_columns), self._stream.expected_with_recent()

    def _fast(self, *, lately: bool) -> dict[str, dict[str, float]]:
        """Of each streaming set, which share of predictions had its values (``fresh``), or why it was at its defaults."""
        counts = self._judge.fates_of_late(_LATELY_S) if lately else self._judge.fates
        return {
            name: {fate: round(count / found.total(), 4) for fate, count in found.most_common()}
            for name, found in sorted(counts.items())
            if name in self._fast_sets
        }

    def _load_features(self, topology: Topology) -> None:
        sets = {one.name: one for step in topology.steps if isinstance(step, FeatureLookup) for one in step.sets}
        self._fast_sets = {name for name, one in sets.items() if one.kind == "streaming"}
        for name, path in self._stream.write_features(self._folder):
            self._progress(f"Loading features: {name}, {len(self._stream.tables[name]):,} rows")
            load_file(path, sets[name].schema, sets[name].key, url=self._settings.redis.url)

    def _wait_for_the_group(self, group: str) -> None:
        """Until its members have partitions, so that the first events do not wait for them."""
        admin = KafkaAdmin(self._settings.client())
        deadline = time.monotonic() + _PATIENCE_S
        while not admin.group_is_stable(group) and self._crash is None:
            if time.monotonic() > deadline:
                raise FatalError(f"Nobody has joined group {group} within {_PATIENCE_S:.0f} s.")
            self._stop.wait(0.1)

    def _work(self) -> None:
        arguments = ["run", f"topologies/{_TOPOLOGY}", "--brokers", self._settings.brokers]
        arguments += ["--redis-url", self._settings.redis.url, "--group", self._group]
        try:
            self._summaries = supervise(
                lambda number: arguments, self._options.workers, self._stop, started=self._pids.__setitem__, quiet=True
            )
        except StreamMLError as error:
            self._crash = error

    def _pause_redis(self) -> None:
        import redis

        with redis.Redis.from_url(self._settings.redis.url) as client:
            client.execute_command("CLIENT", "PAUSE", _PAUSE_MS)


def _pieces() -> tuple[Located[Topology], Any, Any]:
    if not (Path("topologies") / _TOPOLOGY / "topology.py").is_file():
        raise ConfigError(
            "The demo's topology is not here: run `streamml demo` in a checkout of the project (or `make demo`)."
        )
    located = locate_topology(f"topologies/{_TOPOLOGY}")
    names = (f"topologies.{_TOPOLOGY}.{name}" for name in ("stream", "quality"))
    stream, quality = (importlib.import_module(name) for name in names)
    return located, stream, quality


def faults_of(text: Sequence[str]) -> tuple[str, ...]:
    """Names of faults.

    Raises:
        ConfigError: one is unknown.
    """
    unknown = [name for name in text if name not in FAULTS]
    if unknown:
        raise ConfigError(f"{', '.join(unknown)} is no fault of the demo; choose among {', '.join(FAULTS)}.")
    return tuple(text)
