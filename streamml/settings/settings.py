"""The settings, with their bounds and defaults in one place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

Property = str | int | float | bool

REFUSED: Final[Mapping[str, str]] = {
    "group.id": "the group is the setting `group`, or the topology's name",
    "group.instance.id": "the identity of a worker is the setting `worker_id`",
    "transactional.id": "it follows from the worker's identity",
    "enable.auto.commit": "offsets are committed only behind acknowledged results",
    "enable.auto.offset.store": "offsets are committed only behind acknowledged results",
    "auto.offset.reset": "where a group starts is Source(start=), and an offset below retention must stop the worker",
    "partition.assignment.strategy": "rebalances have to be cooperative, so that partitions that stay keep running",
    "group.protocol": "it is the setting `worker.group_protocol`, as more depends on it",
    "enable.partition.eof": "without it nobody hears that only a transaction's marker is left",
    "delivery.report.only.error": "a prediction is settled when the broker says so",
    "enable.idempotence": "without it a retry by the client can write a prediction twice, or out of order",
    "acks": "a prediction is settled when all replicas have it",
    "message.timeout.ms": "the producer must not give up on a prediction while the broker is away",
    "delivery.timeout.ms": "the producer must not give up on a prediction while the broker is away",
    "partitioner": "predictions have to lie where Java's partitioner would put them",
}
"""librdkafka properties that the promises rest on, and why each is not to be set."""

BROKERS_TO_SAY: Final[Mapping[str, str]] = {
    "session.timeout.ms": "consumer.session.timeout.ms",
    "heartbeat.interval.ms": "consumer.heartbeat.interval.ms",
}
"""librdkafka properties that the group's configuration on the broker replaces with ``group_protocol = "consumer"``."""

# A drain ends a little behind its time, with a commit that is waited for.
_DRAIN_MARGIN_MS: Final = 5000
# By what a name says rather than by a list: properties of libraries come and go, and masking one too many does no harm.
_SECRET: Final = re.compile(
    r"pass|pwd|secret|token|private|key([._](pem|data))?$|jaas|oauthbearer\.(config|extensions)|credential|assertion$",
    re.IGNORECASE,
)
# A password may hold every character, so it ends at the last @; redis-py also takes it as an argument behind the ``?``.
_URL_PASSWORD: Final = re.compile(r"(?<=://)([^/:@]*):(.*)@")
_URL_ARGUMENT: Final = re.compile(r"(?<=[?&])(\w*(?:pass|pwd|secret|token)\w*)=[^&\s]*", re.IGNORECASE)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RedisSettings(_Section):
    """Where features are."""

    url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="Redis; `rediss://` for TLS, user and password in the URL. Of a Redis Cluster one node or, by commas, several.",
    )
    timeout_ms: int = Field(default=1000, ge=1, le=60_000, description="Longest wait for one answer.")
    options: dict[str, Property] = Field(
        default_factory=dict, description="Further arguments of a redis-py connection, `ssl_ca_certs` for example."
    )


class ModelSettings(_Section):
    """How models run."""

    repository: Path | None = Field(
        default=None, description="Folder of `<model>/<version>/`; default: `models` beside the topology."
    )
    providers: tuple[Literal["cpu", "cuda", "tensorrt"], ...] = Field(
        default=("cpu",), description="The first that can run an operator does."
    )
    threads: int = Field(default=1, ge=1, le=1024, description="CPU threads of one operator.")
    device: int = Field(default=0, ge=0, description="Number of the GPU.")
    cuda_graphs: bool = Field(
        default=True,
        description="Whether a model on a GPU (PyTorch, ONNX by CUDA) replays a batch as one graph, captured before the worker joins.",
    )


class WorkerSettings(_Section):
    """Bounds and times of a worker."""

    max_in_flight_rows: int = Field(
        default=50_000, ge=1, description="Records polled and not settled; one poll may overshoot it."
    )
    max_in_flight_mb: int = Field(default=64, ge=1, description="The same in megabytes of keys and values.")
    max_poll_rows: int = Field(default=4096, ge=1, le=100_000, description="Most records taken by one poll.")
    processing_guarantee: Literal["at_least_once", "exactly_once"] = Field(
        default="at_least_once",
        description="`exactly_once`: predictions, dead letters and offsets in one transaction; readers use read_committed.",
    )
    group_protocol: Literal["classic", "consumer"] = Field(
        default="classic",
        description="`consumer`: the new rebalance protocol (KIP-848, Kafka 4.0 on), in which the broker sets session and heartbeat.",
    )
    commit_interval_ms: int = Field(default=200, ge=10, le=60_000, description="How often offsets are committed.")
    drain_ms: int = Field(default=5000, ge=100, le=600_000, description="Time that a revoke or a shutdown may take.")
    stuck_after_ms: int = Field(
        default=600_000,
        ge=1000,
        validate_default=True,
        description="A step that takes longer, or no progress for so long with records at hand, ends the worker with exit code 3.",
    )

    @field_validator("stuck_after_ms")
    @classmethod
    def _longer_than_a_drain(cls, stuck_after_ms: int, info: ValidationInfo) -> int:
        drain_ms = info.data.get("drain_ms", 0)
        if stuck_after_ms < drain_ms + _DRAIN_MARGIN_MS:
            raise PydanticCustomError(
                "within_drain",
                "it has to exceed worker.drain_ms ({drain_ms}) by {margin} at least, or the watchdog may end a drain",
                {"drain_ms": drain_ms, "margin": _DRAIN_MARGIN_MS},
            )
        return stuck_after_ms


class MetricsSettings(_Section):
    """Where metrics are served."""

    port: int | None = Field(
        default=None, ge=0, le=65_535, description="Port for Prometheus; none: no metrics are served."
    )
    host: str = Field(default="127.0.0.1", description="Address that the port is opened on.")


class Settings(_Section):
    """Everything that is set outside the topology."""

    brokers: str = Field(
        default="127.0.0.1:9092", min_length=1, description="`host:port` of brokers, separated by commas."
    )
    group: str | None = Field(default=None, min_length=1, description="Consumer group; default: the topology's name.")
    worker_id: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")] = Field(
        default=None,
        description="Stable identity of this worker (a StatefulSet's ordinal); default: the first that is free on this machine.",
    )
    kafka: dict[str, Property] = Field(
        default_factory=dict, description="librdkafka properties of all clients: TLS, SASL and so on."
    )
    kafka_consumer: dict[str, Property] = Field(
        default_factory=dict, description="librdkafka properties of the consumer only."
    )
    kafka_producer: dict[str, Property] = Field(
        default_factory=dict, description="librdkafka properties of the producer only."
    )
    redis: RedisSettings = RedisSettings()
    model: ModelSettings = ModelSettings()
    worker: WorkerSettings = WorkerSettings()
    metrics: MetricsSettings = MetricsSettings()

    def client(self) -> dict[str, Property]:
        """librdkafka properties that every client gets."""
        return {**self.kafka, "bootstrap.servers": self.brokers}

    def consumer(self) -> dict[str, Property]:
        return {**self.client(), **self.kafka_consumer, "group.protocol": self.worker.group_protocol}

    def producer(self) -> dict[str, Property]:
        return {**self.client(), **self.kafka_producer}


def masked(name: str, value: Any) -> Any:
    """``value`` as it may be shown: secrets by name, and passwords in URLs, are replaced."""
    if value is not None and _SECRET.search(name):
        return "****"
    if not isinstance(value, str):
        return value
    return _URL_ARGUMENT.sub(r"\1=****", _URL_PASSWORD.sub(r"\1:****@", value))
