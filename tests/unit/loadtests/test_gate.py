"""The gate lets a slower machine pass, and a slower worker not."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests.gate import COMMITTED, ratios, worse

RESULT: dict[str, Any] = {
    "ratio": 0.30,
    "hand_written_ratio": 1.2,
    "exactly_once_ratio": 0.96,
    "cpu_s_per_million": {"bare": 4.0, "worker": 12.0, "hand_written": 13.0},
    "latency_ms": {"2000": {"bare": {"p50": 5.0, "p99": 20.0}, "worker": {"p50": 10.0, "p99": 40.0}}},
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(RESULT), **changes}


def test_the_same_and_the_better_pass() -> None:
    assert list(worse(RESULT, RESULT)) == []
    assert list(worse(changed(ratio=0.5, hand_written_ratio=2.0), RESULT)) == []


def test_a_machine_that_is_half_as_fast_passes() -> None:
    slower = changed(
        cpu_s_per_million={who: 2 * seconds for who, seconds in RESULT["cpu_s_per_million"].items()},
        latency_ms={"2000": {"bare": {"p50": 10.0, "p99": 40.0}, "worker": {"p50": 20.0, "p99": 80.0}}},
    )
    assert list(worse(slower, RESULT)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ratio": 0.25}, "of the bare loop's: 0.250, and 0.300 before; more than 15% worse"),
        ({"exactly_once_ratio": 0.8}, "exactly once"),
        ({"cpu_s_per_million": {"bare": 4.0, "worker": 15.0, "hand_written": 16.5}}, "per processor second"),
        ({"latency_ms": {"2000": {"bare": {"p50": 5, "p99": 20}, "worker": {"p50": 12, "p99": 40}}}}, "(p50)"),
        ({"latency_ms": {"2000": {"bare": {"p50": 5, "p99": 20}, "worker": {"p50": 10, "p99": 60}}}}, "(p99)"),
        ({"latency_ms": {}}, "no figure for quickness at 2,000/s (p50)"),
    ],
)
def test_what_is_worse_is_said(changes: dict[str, Any], said: str) -> None:
    sentences = list(worse(changed(**changes), RESULT))
    assert any(said in sentence for sentence in sentences), sentences


def test_p99_may_be_three_times_as_far_off() -> None:
    off = {"2000": {"bare": {"p50": 5, "p99": 20}, "worker": {"p50": 10, "p99": 55}}}
    assert list(worse(changed(latency_ms=off), RESULT)) == []


def test_the_committed_result_has_ratios() -> None:
    assert len(ratios(json.loads(COMMITTED.read_text()))) >= 4


def test_the_command_ends_with_1_where_something_is_worse(tmp_path: Path) -> None:
    for name, content in (("new", changed(ratio=0.1)), ("old", RESULT)):
        (tmp_path / name).write_text(json.dumps(content))

    def gate(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "loadtests.gate", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=COMMITTED.parents[2])

    bad, good = gate(str(tmp_path / "new"), str(tmp_path / "old")), gate(str(tmp_path / "old"), str(tmp_path / "old"))
    assert (bad.returncode, good.returncode) == (1, 0)
    assert "of the bare loop's: 0.100" in bad.stdout
    assert gate(str(tmp_path / "nothing")).returncode == 2
