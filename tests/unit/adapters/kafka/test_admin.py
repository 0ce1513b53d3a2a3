"""What a broker says about its topics."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Uuid

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.engine.assignment import SlotNames
from streamml.engine.identity import prediction_id
from streamml.ports.source import TopicPartition


def done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


class Answers:
    """A client of a broker that has the topic ``events`` with this id."""

    def __init__(self, id: Uuid | None) -> None:
        self._id = id

    def list_topics(self, *, timeout: float) -> Any:
        return SimpleNamespace(topics={"events": SimpleNamespace(partitions={0: None})})

    def describe_topics(self, names: object, *, request_timeout: float) -> dict[str, Future[Any]]:
        return {"events": done(SimpleNamespace(topic_id=self._id))}

    def describe_configs(self, resources: list[Any], *, request_timeout: float) -> dict[Any, Future[Any]]:
        settings = {"max.message.bytes": "1000", "cleanup.policy": "delete"}
        return {resources[0]: done({name: SimpleNamespace(value=value) for name, value in settings.items()})}


@pytest.mark.parametrize("id", [None, Uuid(0, 0)], ids=["no id", "zeros"])
def test_d3_prediction_ids_name_the_topic_where_the_broker_has_no_ids(id: Uuid | None) -> None:
    assert first_id(id) == "events/0/7"


def test_d3_prediction_ids_have_the_topics_id_where_there_is_one() -> None:
    assert first_id(Uuid(1, 2)) == f"{Uuid(1, 2)}/0/7"


def first_id(id: Uuid | None) -> str:
    admin = KafkaAdmin({"bootstrap.servers": "nowhere:1"})
    admin._client = Answers(id)
    names = SlotNames({name: info.id for name, info in admin.topics(["events"]).items()})
    return prediction_id(names.prefixes[names.add(TopicPartition("events", 0))], 7)
