"""What a broker says of its topics."""

from __future__ import annotations

import time
import uuid

import pytest

from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.ops.embedded.kafka import EmbeddedKafka

pytestmark = pytest.mark.integration


def test_a_topic_that_is_deleted_between_two_questions_is_not_there(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = KafkaAdmin({"bootstrap.servers": kafka.bootstrap_servers})
    kept, deleted = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("kept", "deleted"))
    admin.create([NewTopicPlan(kept, 1), NewTopicPlan(deleted, 1)])
    before = admin._described([kept, deleted])
    assert set(before[0]) == {kept, deleted}
    admin.delete_topics([deleted])
    ends = time.monotonic() + 30
    while admin.topic_id(deleted) is not None:
        assert time.monotonic() < ends
        time.sleep(0.02)
    monkeypatch.setattr(admin, "_described", lambda names: before)
    assert list(admin.topics([kept, deleted])) == [kept]
