"""What is read of the topic that replays are recorded in."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from streamml.ops.replay.registry import read_replay
from streamml.ops.replay.replay import Replay, Span

REPLAY = Replay(
    3, "t", (Span("in", 0, 0, 5),), {"in": "x"}, "to", "letters", {}, "live", None, "me", 5, within_us=(1, 2)
)
RECORDED: dict[str, Any] = {"version": 1, **asdict(REPLAY)}


def test_a_replay_is_read_as_it_was_recorded_and_what_a_later_version_added_is_passed_over() -> None:
    assert read_replay(json.dumps({**RECORDED, "added": [1]}).encode()) == REPLAY


@pytest.mark.parametrize(
    "told",
    [
        {"version": 2},
        {"version": "1"},
        {"number": "3"},
        {"number": 0},
        {"state": "odd"},
        {"spans": [{"topic": 1}]},
        {"counts": {"consumed": "many"}},
        {"started_ms": None},
        {"within_us": [1]},
        {"max_ratio": float("nan")},
    ],
)
def test_a_record_that_is_not_quite_a_replay_keeps_nobody_from_the_others(told: dict[str, Any]) -> None:
    assert read_replay(json.dumps({**RECORDED, **told}).encode()) is None


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"1", b"[]", b"[" * 100_000, b"who@host", b'{"version":1}'])
def test_garbage_is_no_replay(value: bytes | None) -> None:
    assert read_replay(value) is None
