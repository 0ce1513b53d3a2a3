"""Writes one record and waits until the broker has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, Producer

from streamml.adapters.kafka.client import Trouble, error_of, opened, translated
from streamml.errors import FatalError

_WRITE_S: Final = 10.0
_LISTEN_S: Final = 1.0
_GONE: Final = (KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART)


def append(client: Mapping[str, Any], topic: str, key: bytes, value: bytes) -> int:
    """Write a record to partition 0; returns its offset.

    Args:
        client: librdkafka properties of a producer.

    Raises:
        SourceUnavailable: the broker has not taken the record within ten seconds.
        FatalError: the broker refuses the login, this client may not write to the topic, or it is gone.
    """
    trouble = Trouble()
    own = {
        # Alone in its producer: a retry can repeat it, which changes nothing, and nothing can come between. Asking for the id
        # that rules repeats out takes half a second.
        "enable.idempotence": False,
        "acks": "all",
        "message.timeout.ms": int(_WRITE_S * 1000),
        "topic.metadata.propagation.max.ms": int(_WRITE_S * 500),
    }
    producer: Any = opened(Producer, {**client, **own}, trouble)
    reports: list[tuple[KafkaError | None, int]] = []
    producer.produce(
        topic, value, key, partition=0, on_delivery=lambda error, message: reports.append((error, message.offset()))
    )
    with translated(str(client.get("bootstrap.servers")), trouble):
        while producer.flush(_LISTEN_S) and not reports:
            trouble.check()
    error, offset = reports[0]
    if error is not None and error.code() in _GONE:
        raise FatalError(
            f"There is no topic {topic!r} any more; `streamml topics create` makes it, and so does a worker that starts."
        )
    if error is not None:
        trouble.check()
        raise error_of(error, str(client.get("bootstrap.servers")))
    return offset
