"""One Kafka broker (KRaft) as a child process, on loopback only."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from streamml.errors import ConfigError
from streamml.ops.embedded.java import class_path, default_cache, java

_CLUSTER: Final = "c3RyZWFtbWwtZGV2LTAwMQ"
_READY_S: Final = 60.0


class EmbeddedKafka:
    """A broker whose data lies under one folder and survives `kill`.

    Args:
        root: folder for configuration, data and log; made if it is missing.
        port: port for clients; ``None`` picks a free one at the first start and keeps it.
        progress: hears what takes long.
    """

    def __init__(
        self, root: Path, *, port: int | None = None, progress: Callable[[str], None] = lambda text: None
    ) -> None:
        self._root = root
        self._progress = progress
        self._process: subprocess.Popen[bytes] | None = None
        self._port = port if port is not None else _free_port()
        self._controller_port = _free_port()

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` for clients."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start, and return when a client gets answers.

        Raises:
            ConfigError: the port is taken, the folder cannot be written, Java or Kafka is not to be had, or the broker
                ended; each with what to do.
        """
        if _listening(self._port):
            raise ConfigError(
                f"Port {self._port} on 127.0.0.1 is taken; stop what listens there or choose another port."
            )
        jars = class_path(default_cache(), self._progress)
        properties = self._configure()
        self._format(jars, properties)
        with (self._root / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(
                [java(), "-Xmx512m", "-XX:+UseSerialGC", "-cp", jars, "kafka.Kafka", str(properties)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._wait_until_ready()

    def kill(self) -> None:
        """End the broker as a crash does (SIGKILL)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the broker in good order; after 15 s by force."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _configure(self) -> Path:
        data = self._root / "data"
        listeners = f"PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{self._controller_port}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": listeners,
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._port}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(data),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "5",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "5",
            "group.initial.rebalance.delay.ms": "0",
        }
        try:
            data.mkdir(parents=True, exist_ok=True)
            path = self._root / "server.properties"
            path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        except OSError as error:
            raise ConfigError(f"{self._root} cannot be written ({error.strerror}); choose another folder.") from error
        return path

    def _format(self, jars: str, properties: Path) -> None:
        if (self._root / "data" / "meta.properties").exists():
            return
        done = subprocess.run(
            [java(), "-cp", jars, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(properties)],
            capture_output=True,
            text=True,
            timeout=_READY_S,
            check=False,
        )
        if done.returncode:
            raise ConfigError(f"Kafka's folder {self._root} could not be prepared: {done.stderr.strip()[-500:]}")

    def _wait_until_ready(self) -> None:
        from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

        assert self._process is not None
        address = {"bootstrap.servers": self.bootstrap_servers}
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                self._process = None
                break
            try:
                if _listening(self._port):
                    # A group and a producer id: the coordinators load after the listener opens.
                    Producer({**address, "transactional.id": "streamml-ready"}, logger=_quiet()).init_transactions(5.0)
                    probe = Consumer({**address, "group.id": "streamml-ready"}, logger=_quiet())
                    probe.committed([TopicPartition("streamml-ready", 0)], timeout=5.0)
                    probe.close()
                    return
            except KafkaException:
                pass
            time.sleep(0.05)
        self.kill()
        raise ConfigError(f"Kafka did not start; the end of its log:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return (self._root / "kafka.log").read_text(errors="replace")[-1500:]

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None else self._process.pid


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _quiet() -> logging.Logger:
    logger = logging.getLogger("streamml.embedded")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger
