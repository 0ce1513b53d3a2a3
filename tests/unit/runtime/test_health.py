"""L2: when a worker is ready, and when it is alive."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamml.ports.control import GroupState
from streamml.runtime.health import Liveness, Signs, ready

BUSY = Signs(at_hand=5, progress=(1, 2))
PAUSED = GroupState(True, "maintenance")


@pytest.mark.parametrize(
    ("signs", "word"),
    [
        (Signs(joined=False), "joining"),
        (Signs(draining=True), "draining"),
        (Signs(group_state=PAUSED), "paused: maintenance"),
        (Signs(waits_for="Redis does not answer"), "Redis"),
    ],
)
def test_ready_is_who_would_score_what_comes_now(signs: Signs, word: str) -> None:
    """L2.3."""
    assert ready(Signs()).ok
    health = ready(signs)
    assert not health.ok
    assert word in health.reason


def test_nothing_done_with_records_at_hand_is_not_alive() -> None:
    """L2.2."""
    liveness = Liveness(10.0)
    assert liveness.judge(BUSY, 0.0).ok
    assert liveness.judge(BUSY, 10.0).ok
    health = liveness.judge(BUSY, 10.1)
    assert not health.ok
    assert "5 records are at hand" in health.reason


def test_progress_is_alive_however_slow() -> None:
    liveness = Liveness(10.0)
    for step in range(10):
        assert liveness.judge(replace(BUSY, progress=(step,)), step * 9.0).ok


@pytest.mark.parametrize(
    "excuse",
    [{"at_hand": 0}, {"waits_for": "Redis does not answer"}, {"group_state": PAUSED}, {"draining": True}],
    ids=str,
)
def test_idle_waiting_for_a_dependency_and_paused_is_alive_and_patience_begins_anew_behind_it(
    excuse: dict[str, object],
) -> None:
    """L2.2."""
    liveness = Liveness(10.0)
    excused = replace(BUSY, **excuse)  # type: ignore[arg-type]
    assert all(liveness.judge(excused, at).ok for at in (0.0, 100.0))
    assert liveness.judge(BUSY, 109.0).ok
    assert not liveness.judge(BUSY, 111.0).ok


def test_a_step_that_does_not_come_back_is_not_alive_whatever_else_is() -> None:
    """L2.1."""
    health = Liveness(10.0).judge(Signs(longest=("the stage score", 11.0)), 0.0)
    assert not health.ok
    assert "the stage score" in health.reason
