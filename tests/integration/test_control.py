"""E4: the topic that a group is paused by, when it is lost, or may not be read or written any more."""

from __future__ import annotations

import queue
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from confluent_kafka.admin import AdminClient

from streamml.adapters.kafka import control
from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.control import KafkaControl, write_state
from streamml.compose.control import control_plan
from streamml.errors import FatalError
from streamml.ops.acls import Right
from streamml.ports.control import GroupState, Storm
from tests.integration.secured import USER, Secured
from tests.integration.test_pause import until

pytestmark = pytest.mark.integration

PATIENCE_S: Final = 60
STORM: Final = GroupState(True, "too many", "w", 1, Storm(0.5, 20))


@dataclass
class Listener:
    """A control as the worker's user has it, and what it has said."""

    secured: Secured
    group: str = field(default_factory=lambda: f"group-{uuid.uuid4().hex[:8]}")
    heard: queue.SimpleQueue[GroupState] = field(default_factory=queue.SimpleQueue)
    failed: queue.SimpleQueue[FatalError] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self.client: dict[str, Any] = {
            **self.secured.sasl(),
            "bootstrap.servers": self.secured.security.sasl_servers,
            "group.id": self.group,
        }
        self.own: dict[str, Any] = {"bootstrap.servers": self.secured.broker.bootstrap_servers}
        self.topic = control_plan(self.group).name
        self.create()
        producer = {name: value for name, value in self.client.items() if name != "group.id"}
        self.control = KafkaControl(self.client, producer, self.topic)

    def right(self, operation: str) -> Right:
        return Right(f"User:{USER}", operation, "topic", self.topic)

    def create(self) -> None:
        KafkaAdmin(self.own).create([control_plan(self.group, 1)])

    def delete(self) -> None:
        admin = AdminClient(self.own)
        admin.delete_topics([self.topic])[self.topic].result()

    def open(self) -> GroupState:
        return self.control.open(self.heard.put, self.failed.put)

    def says(self, word: str) -> Callable[[], bool]:
        return lambda: word in (self.control.trouble() or "")


@pytest.fixture
def listener(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setattr(control, "CHECK_S", 0.5)
    made = Listener(secured)
    yield made
    made.control.close()


def test_e4_a_control_topic_that_is_lost_is_told_and_heard_again_when_it_is_back(listener: Listener) -> None:
    """E4.8."""
    listener.secured.grant([listener.right("READ"), listener.right("WRITE")])
    write_state(listener.own, listener.topic, GroupState(False, "", "ann"))
    assert not listener.open().paused
    listener.delete()
    until(listener.says("hears of no pause"))
    listener.create()
    write_state(listener.own, listener.topic, GroupState(True, "maintenance", "ann"))
    assert listener.heard.get(timeout=PATIENCE_S).reason == "maintenance"
    until(lambda: listener.control.trouble() is None)


def test_e4_a_right_to_read_that_is_taken_is_told_and_a_pause_is_heard_when_it_is_back(listener: Listener) -> None:
    """E4.8."""
    listener.secured.grant([listener.right("READ")])
    listener.open()
    listener.secured.take(listener.right("READ"))
    write_state(listener.own, listener.topic, STORM)
    # The broker refuses what the client asks for, or hides the topic from it, whichever comes first.
    until(listener.says("right"))
    listener.secured.grant([listener.right("READ")])
    assert listener.heard.get(timeout=PATIENCE_S) == STORM


def test_e4_a_storm_of_which_the_group_cannot_be_told_for_want_of_a_right_ends_the_worker(listener: Listener) -> None:
    """E4.7."""
    listener.secured.grant([listener.right("READ")])
    listener.open()
    listener.control.record(STORM)
    error = listener.failed.get(timeout=PATIENCE_S)
    assert "too many, and the group cannot be told" in str(error)
    assert "lacks a right" in str(error)
