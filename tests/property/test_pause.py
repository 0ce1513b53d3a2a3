"""The engine under random schedules with pauses, resumptions and storms of dead letters (E4), with both guarantees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamml.engine.dead_letters import DeadLetterLimit
from streamml.engine.engine import Engine
from streamml.engine.events import Action, GroupTold, TellGroup
from streamml.ports.control import RUNNING, GroupState
from streamml.ports.source import Positions
from tests.property.test_engine import CONFIG, PARTITIONS, World
from tests.property.test_exactly_once import Transactions

SAMPLE = 30
LIMIT = DeadLetterLimit(0.15, SAMPLE)


class Paused(World):
    """A group that is paused by hand, and by its storms, and told to go on after a while."""

    def __init__(self, seed: int, records: int) -> None:
        super().__init__(seed, records)
        self.state = RUNNING
        self.storms = 0

    def new_engine(self) -> Engine:
        return Engine(replace(CONFIG, dead_letter_limit=LIMIT), self.names)

    def obey(self, action: Action) -> None:
        if isinstance(action, TellGroup):
            assert self.state.storm is None, "a storm is told once"
            self.state, self.storms = action.state, self.storms + 1
        else:
            super().obey(action)

    def say(self, state: GroupState) -> None:
        self.state = state
        self.tell(GroupTold(state))

    def check_commit(self, positions: Any) -> None:
        if self.state.storm is not None:
            assert all(self.committed[where] == to for where, to in positions.items()), "committed in a storm"
        super().check_commit(positions)

    def step(self) -> None:
        choice = self.random.random()
        if self.state.paused and choice < 0.05:
            self.say(RUNNING)
        elif not self.state.paused and choice < 0.01:
            self.say(GroupState(True, "by hand"))
        assert not (self.gate and self.state.paused)
        super().step()


class PausedTransactions(Paused, Transactions):
    """The same in transactions."""

    def new_engine(self) -> Engine:
        return Engine(replace(CONFIG, dead_letter_limit=LIMIT, exactly_once=True), self.names)

    def apply(self, positions: Positions) -> None:
        assert self.state.storm is None, "committed in a storm"
        super().apply(positions)


@pytest.mark.parametrize("kind", [Paused, PausedTransactions])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), records=st.integers(1, 150))
def test_e4_d1_d2_whatever_pauses_nothing_is_lost_and_nothing_committed_in_a_storm(
    kind: type[Paused], seed: int, records: int
) -> None:
    world = kind(seed, records)
    for partition in PARTITIONS:
        world.assign(partition)
    for _ in range(30_000):
        world.step()
        if all(position == records for position in world.committed.values()):
            break
    assert world.committed == dict.fromkeys(PARTITIONS, records)
    for (topic, _), offsets in world.topics.items():
        if topic == "predictions":
            assert offsets == sorted(set(offsets))


@pytest.mark.parametrize("kind", [Paused, PausedTransactions])
def test_e4_there_are_storms_in_these_schedules(kind: type[Paused]) -> None:
    world = kind(1, 500)
    for partition in PARTITIONS:
        world.assign(partition)
    for _ in range(3_000):
        world.step()
    assert world.storms > 1
