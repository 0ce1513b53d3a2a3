"""The engine with pauses by hand and storms of dead letters, in any order of events (E4), with both guarantees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from streamml.engine.dead_letters import DeadLetterLimit
from streamml.engine.events import Action, CommitTransaction, Event, GroupTold, TellGroup
from streamml.ports.control import RUNNING, GroupState
from streamml.ports.source import Positions
from tests.property.surroundings import Fate, Surroundings
from tests.property.test_engine import AtLeastOnce
from tests.property.test_exactly_once import ExactlyOnce

LETTER = Fate(None, ("letter",))
PREDICTION = Fate(None, ("prediction",))


class Paused(Surroundings):
    """A group that is told to pause, by hand and by its storms, and to go on after a while."""

    limit = DeadLetterLimit(0.15, 10)

    def __init__(self) -> None:
        super().__init__()
        self.state = RUNNING
        self.storms = 0

    def start(self) -> None:
        super().start()
        if self.state.paused:
            self.tell(GroupTold(self.state))

    def obey(self, action: Action) -> None:
        match action:
            case TellGroup():
                assert self.state.storm is None, "a storm is told once"
                self.state, self.storms = action.state, self.storms + 1
            case CommitTransaction():
                assert self.state.storm is None, "committed in a storm"
                super().obey(action)
            case _:
                super().obey(action)

    def tell(self, event: Event) -> None:
        super().tell(event)
        assert not (self.gate and self.state.paused)

    def answers(self) -> list[Callable[[], None]]:
        return [*super().answers(), *[self.somebody_resumes] * self.state.paused]

    @precondition(lambda self: not self.state.paused)
    @rule(now_and_then=st.integers(0, 4))
    def somebody_pauses(self, now_and_then: int) -> None:
        if now_and_then == 0:
            self.say(GroupState(True, "by hand"))

    @precondition(lambda self: self.state.paused)
    @rule()
    def somebody_resumes(self) -> None:
        self.say(RUNNING)

    def say(self, state: GroupState) -> None:
        self.state = state
        self.tell(GroupTold(state))


class PausedAtLeastOnce(Paused, AtLeastOnce):
    """Nothing is committed behind what was settled before a storm."""

    def checked(self, positions: Positions) -> dict[int, int]:
        if self.state.storm is not None:
            assert all(self.logs[where.partition].said == to for where, to in positions.items()), "committed in a storm"
        return super().checked(positions)


class PausedExactlyOnce(Paused, ExactlyOnce):
    """No transaction is committed in a storm."""


class TestD1E4AtLeastOnce(PausedAtLeastOnce.TestCase):  # type: ignore[misc, name-defined]
    """D1, E4: whatever pauses, nothing is lost, and nothing is committed in a storm."""


class TestD2E4ExactlyOnce(PausedExactlyOnce.TestCase):  # type: ignore[misc, name-defined]
    """D2, E4: whatever pauses, every record is seen once, and nothing is committed in a storm."""


@pytest.mark.parametrize("kind", [PausedAtLeastOnce, PausedExactlyOnce])
def test_e4_a_storm_pauses_until_somebody_resumes(kind: type[Any]) -> None:
    world = kind()
    backlog = [PREDICTION] * 8 + [LETTER] * 12 + [PREDICTION] * 20
    world.begin(1, False, (8, 8), budget=15, outbound=20, interval_s=0.2, ordered=True, backlog=backlog)
    others = lambda: [one for one in world.next_things() if one != world.somebody_resumes]  # noqa: E731
    while found := others():
        found[0]()
    assert world.storms == 1
    assert world.state.paused
    assert world.logs[0].committed < 10
    world.teardown()
