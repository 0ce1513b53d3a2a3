"""What has to be there before the demo's stream begins: servers, topics, features, and the flights themselves."""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streamml.compose.locate import locate_topology
from streamml.errors import ConfigError
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.features import load_file
from streamml.ops.topics import create_topics
from streamml.settings.settings import RedisSettings, Settings
from streamml.topology.steps import FeatureLookup
from streamml.topology.topology import Topology

TOPOLOGY: Final = "topologies/flight_delay"
_PARTITIONS: Final = 4

Progress = Callable[[str], None]


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


class Stage:
    """Servers, topics and features of one demo. `close` ends and removes what it started."""

    def __init__(self, options: DemoOptions, progress: Progress) -> None:
        """
        Args:
            progress: hears what is done.
        """
        self._options = options
        self._progress = progress
        self._servers: list[EmbeddedKafka | EmbeddedRedis] = []
        self.folder = Path(tempfile.mkdtemp(prefix="streamml-demo-"))

    def set(self) -> None:
        """Start servers, load features, make topics.

        Raises:
            ConfigError: the demo's files are not here, or a server cannot be started.
        """
        self.topology = _topology()
        self.stream_module, self.quality_module = (_module(name) for name in ("stream", "quality"))
        self.settings = Settings(
            brokers=self._options.brokers or self._kafka(),
            redis=RedisSettings(url=self._options.redis_url or self._redis()),
        )
        self._progress("Preparing the flights of October to December 2013, and what was known before each")
        self.stream = self.stream_module.prepare(self._options.events or sys.maxsize)
        self._load_features()
        create_topics(self.topology, self.settings, _PARTITIONS, -1)

    def close(self) -> None:
        for server in reversed(self._servers):
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _kafka(self) -> str:
        kafka = EmbeddedKafka(self.folder / "kafka", progress=self._progress)
        self._start("Kafka", kafka)
        return kafka.bootstrap_servers

    def _redis(self) -> str:
        redis = EmbeddedRedis(self.folder / "redis", progress=self._progress)
        self._start("Redis", redis)
        return redis.url

    def _start(self, name: str, server: EmbeddedKafka | EmbeddedRedis) -> None:
        self._progress(f"Starting {name}")
        self._servers.append(server)
        server.start()

    def _load_features(self) -> None:
        steps = self.topology.steps
        sets = {one.name: one for step in steps if isinstance(step, FeatureLookup) for one in step.sets}
        for name, path in self.stream.write_features(self.folder):
            self._progress(f"Loading features: {name}, {len(self.stream.tables[name]):,} rows")
            load_file(path, sets[name].schema, sets[name].key, url=self.settings.redis.url)


def _topology() -> Topology:
    if not Path(TOPOLOGY, "topology.py").is_file():
        raise ConfigError(
            "The demo's topology is not here: run `streamml demo` in a checkout of the project (or `make demo`)."
        )
    return locate_topology(TOPOLOGY).found


def _module(name: str) -> Any:
    return importlib.import_module(f"{TOPOLOGY.replace('/', '.')}.{name}")
