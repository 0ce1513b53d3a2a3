"""One Kafka broker (KRaft) as a child process, on loopback only."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from streamml.errors import ConfigError
from streamml.ops.cores import cores
from streamml.ops.embedded.java import class_path, default_cache, java
from streamml.ops.embedded.process import Server, free_port, listening, writable
from streamml.ops.embedded.security import KafkaSecurity

_CLUSTER: Final = "c3RyZWFtbWwtZGV2LTAwMQ"
_READY_S: Final = 90.0
_READY_TOPIC: Final = "streamml-ready"


class EmbeddedKafka(Server):
    """A broker whose data lies under one folder and survives `kill`.

    Args:
        root: folder for configuration, data and log; made if it is missing.
        port, controller_port: ``None`` picks free ones.
        progress: hears what takes long.
        outlive: whether the broker stays when this process ends.
        security: secured listeners beside the plain one, and rights; ``None``: whoever comes may do everything.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int | None = None,
        controller_port: int | None = None,
        progress: Callable[[str], None] = lambda text: None,
        outlive: bool = False,
        security: KafkaSecurity | None = None,
    ) -> None:
        super().__init__(outlive=outlive)
        self._root = root
        self._security = security
        self._progress = progress
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

    def start(self) -> None:
        """Start, and return when a record has gone in and come out again.

        Raises:
            ConfigError: a port is taken, the folder cannot be written, Java or Kafka is not to be had, or the broker ended;
                each with what to do.
        """
        secured = self._security.ports if self._security is not None else ()
        for port in (self._port, self._controller_port, *secured):
            if listening(port):
                raise ConfigError(f"Port {port} on 127.0.0.1 is taken; stop what listens there or choose another port.")
        writable(self._root)
        jars = class_path(default_cache(), self._progress)
        properties = self._configure()
        self._format(jars, properties)
        options = ["-Xmx512m", "-Xshare:auto", "-XX:+UseSerialGC", "-cp", jars]
        self._run([java(), *options, "kafka.Kafka", str(properties)], self._root / "kafka.log")
        self._wait_until_ready()

    def _configure(self) -> Path:
        listeners = f"PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{self._controller_port}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": listeners,
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._port}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(self._root / "data"),
            "auto.create.topics.enable": "false",
            # The defaults, 3 and 8, are of a server of its own. This one shares the cores with its clients, and threads that take
            # turns at them cost a worker's p50 more than they bring (docs/guide/speed.md).
            "num.network.threads": str(max(1, min(3, cores() // 2))),
            "num.io.threads": str(max(2, min(8, cores()))),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "3",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "3",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # The default does not take members that hear of a lost session sooner than after 6 s.
            "group.min.session.timeout.ms": "1000",
            # How often a dead worker's transaction may be found over time, which its successor waits for; the default is 10 s.
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "2000",
            # With the new protocol the broker decides; its own 45 s would be the time until a dead worker is replaced, and a
            # rebalance takes a heartbeat or two.
            "group.consumer.session.timeout.ms": "10000",
            "group.consumer.min.session.timeout.ms": "1000",
            "group.consumer.heartbeat.interval.ms": "1000",
            "group.consumer.min.heartbeat.interval.ms": "100",
            # By their records' time, which events that are fed in from the past carry: they would be gone in minutes.
            "log.retention.ms": "-1",
            # A broker that was killed may register again when its old session has ended; the default is 9 s.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
        }
        if self._security is not None:
            settings = self._security.added_to(settings)
        path = self._root / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return path

    def _format(self, jars: str, properties: Path) -> None:
        if (self._root / "data" / "meta.properties").exists():
            return
        quick = ["-Xshare:auto", "-XX:TieredStopAtLevel=1"]
        arguments = ["format", "-t", _CLUSTER, "-c", str(properties)]
        arguments += self._security.format_arguments() if self._security is not None else []
        done = subprocess.run(
            [java(), *quick, "-cp", jars, "kafka.tools.StorageTool", *arguments],
            capture_output=True,
            text=True,
            timeout=_READY_S,
            check=False,
        )
        if done.returncode:
            raise ConfigError(f"Kafka's folder {self._root} could not be prepared: {_thrown(done.stderr)}")

    def _wait_until_ready(self) -> None:
        from confluent_kafka import KafkaException

        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline and self._running:
            try:
                if listening(self._port):
                    _round_trip(self.bootstrap_servers)
                    return
            except KafkaException:
                pass  # It is not ready; below, the time runs out.
            time.sleep(0.05)
        self.kill()
        raise ConfigError(self._explained())

    def _explained(self) -> str:
        log = (self._root / "kafka.log").read_text(errors="replace")[-20_000:]
        if "No space left on device" in log:
            return f"Kafka did not start: the disk that holds {self._root} is full; make room, then try again."
        return f"Kafka did not start; the end of {self._root / 'kafka.log'}:\n{log[-1500:]}"


def _thrown(stderr: str) -> str:
    """What Java says of an exception, without where it was thrown; the end where there is none."""
    lines = stderr.strip().splitlines()
    return next((line for line in lines if "Exception" in line), stderr.strip()[-500:])


def _round_trip(servers: str) -> None:
    """Make a topic, write a record in a transaction, read it in a group and commit: what clients do, once.

    The coordinators of groups and transactions load after the listener opens; a client that comes earlier is told to wait.
    """
    from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

    address: dict[str, Any] = {"bootstrap.servers": servers, "logger": _quiet(), "reconnect.backoff.max.ms": 100}
    admin = AdminClient(address)
    created = admin.create_topics([NewTopic(_READY_TOPIC, 1, 1)], request_timeout=5.0)
    try:
        created[_READY_TOPIC].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
    producer = Producer({**address, "transactional.id": _READY_TOPIC, "linger.ms": 0})
    producer.init_transactions(10.0)
    producer.begin_transaction()
    producer.produce(_READY_TOPIC, b"ready")
    producer.commit_transaction(10.0)
    consumer = Consumer({**address, "group.id": _READY_TOPIC, "auto.offset.reset": "earliest"})
    try:
        place = TopicPartition(_READY_TOPIC, 0)
        consumer.committed([place], timeout=10.0)
        consumer.assign([TopicPartition(_READY_TOPIC, 0, consumer.get_watermark_offsets(place, timeout=5.0)[1] - 2)])
        message = consumer.poll(10.0)
        if message is None or message.error() is not None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        consumer.commit(message=message, asynchronous=False)
    finally:
        consumer.close()


def _quiet() -> logging.Logger:
    logger = logging.getLogger("streamml.embedded")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger
