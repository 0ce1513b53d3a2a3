"""What a broker says about its topics."""

from __future__ import annotations

import pytest
from confluent_kafka import Uuid

from streamml.adapters.kafka.admin import id_of
from streamml.engine.assignment import SlotNames
from streamml.engine.identity import prediction_id
from streamml.ports.source import TopicPartition


@pytest.mark.parametrize(
    ("id", "name"),
    [(None, "events"), (Uuid(0, 0), "events"), (Uuid(1, 2), str(Uuid(1, 2)))],
    ids=["no id", "zeros", "an id"],
)
def test_d3_prediction_ids_name_the_topic_where_the_broker_has_no_ids(id: Uuid | None, name: str) -> None:
    """D3.2."""
    names = SlotNames({"events": id_of(id) or "events"})
    slot = names.add(TopicPartition("events", 0))
    assert prediction_id(names.prefixes[slot], 7, None) == f"{name}/0/7"
