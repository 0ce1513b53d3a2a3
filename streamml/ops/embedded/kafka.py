"""One Kafka broker (KRaft) as a process, on loopback only."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from streamml.errors import ConfigError
from streamml.ops.embedded.diagnosis import log_size, why
from streamml.ops.embedded.downloads import default_cache, staged
from streamml.ops.embedded.jars import kafka_jars
from streamml.ops.embedded.java import find_java
from streamml.ops.embedded.jvm import Jvm
from streamml.ops.embedded.kafka_ready import answers
from streamml.ops.embedded.process import Process, free_port, listening, spawn, unclaimed, writable

_CLUSTER: Final = "c3RyZWFtbWwtZGV2LTAwMQ"
_READY_S: Final = 90.0
_STOP_S: Final = 15.0
_ARCHIVE_S: Final = 90.0


class EmbeddedKafka:
    """A broker whose data lies under one folder and survives `kill`.

    Args:
        root: folder for configuration, data and log; made if it is missing.
        port, controller_port: ``None`` picks free ones.
        progress: hears what takes long.
        outlive: whether the broker stays when this process ends.
        process: a broker of this folder that was started before.
        jvm: how to run it; ``None``: the Java at hand, Kafka downloaded and archived once.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int | None = None,
        controller_port: int | None = None,
        progress: Callable[[str], None] = lambda text: None,
        outlive: bool = False,
        process: Process | None = None,
        jvm: Jvm | None = None,
    ) -> None:
        self._root = root.absolute()
        self._log = self._root / "kafka.log"
        self._said_before = log_size(self._log)
        self._progress = progress
        self._outlive = outlive
        self._process = process
        self._jvm = jvm
        self._port = port if port is not None else free_port()
        self._controller_port = controller_port if controller_port is not None else free_port()

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` for clients."""
        return f"127.0.0.1:{self._port}"

    @property
    def ports(self) -> tuple[int, int]:
        """For clients, and for the controller."""
        return self._port, self._controller_port

    @property
    def process(self) -> Process | None:
        """What was started, until it is stopped or killed."""
        return self._process

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start, and return when a record has gone in and come out again.

        Raises:
            ConfigError: a port is taken, the folder cannot be written, Java or Kafka is not to be had, or the broker ended;
                each with what to do.
        """
        try:
            self.launch()
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def launch(self) -> Process:
        """Start, and return at once; raises as `start` does."""
        unclaimed(*self.ports)
        writable(self._root)
        jvm = self._jvm or _prepared(self._progress)
        properties = self._configure()
        temporary = self._root / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        self._format(jvm, properties, temporary)
        self._said_before = log_size(self._log)
        command = jvm.command("kafka.Kafka", str(properties), temporary=temporary)
        self._process = spawn(command, self._log, outlive=self._outlive)
        return self._process

    def wait_until_ready(self) -> None:
        """Return when a record has gone in and come out again.

        Raises:
            ConfigError: the broker ended, or does not answer in time.
        """
        assert self._process is not None
        deadline = time.monotonic() + _READY_S
        while self._process.running:
            if listening(self._port) and answers(self.bootstrap_servers):
                return
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"Kafka (process {self.pid}) runs but does not answer on port {self._port}; {self._log} may say why."
                )
            time.sleep(0.05)
        raise ConfigError(why("Kafka", self._log, self._said_before))

    def kill(self) -> None:
        """End the broker as a crash does (SIGKILL)."""
        self._end(signal.SIGKILL, _STOP_S)

    def stop(self, patience_s: float = _STOP_S) -> None:
        """End the broker in good order; by force where it takes longer than ``patience_s``."""
        self._end(signal.SIGTERM, patience_s)

    def _end(self, how: signal.Signals, patience_s: float) -> None:
        if self._process is not None:
            self._process.end(how, patience_s)
        self._process = None

    def _configure(self) -> Path:
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._port}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(self._root / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "3",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "3",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # A broker that was killed may register again when its old session has ended; the default is 9 s.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
        }
        path = self._root / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return path

    def _format(self, jvm: Jvm, properties: Path, temporary: Path) -> None:
        if (self._root / "data" / "meta.properties").exists():
            return
        arguments = ["format", "-t", _CLUSTER, "-c", str(properties)]
        command = replace(jvm, archive_into=None).command("kafka.tools.StorageTool", *arguments, temporary=temporary)
        done = subprocess.run(command, capture_output=True, text=True, timeout=_READY_S, check=False)
        if done.returncode:
            with self._log.open("a") as log:
                log.write(done.stdout + done.stderr)
            raise ConfigError(why("Kafka", self._log, self._said_before))


def _prepared(progress: Callable[[str], None]) -> Jvm:
    cache = default_cache()
    jvm = Jvm(find_java(), tuple(kafka_jars(cache, progress)), cache)
    if not jvm.archive.exists():
        progress("Preparing quick starts of Kafka: some ten seconds, once")
        _archive(jvm)
    return jvm


def _archive(jvm: Jvm) -> None:
    """Let a broker of its own write down the classes that it loads; one that cannot leaves an empty archive."""
    with staged(jvm.archive) as made:
        broker = EmbeddedKafka(made.parent / "kafka", jvm=replace(jvm, archive_into=made))
        broker.start()
        broker.stop(_ARCHIVE_S)
        made.touch()
