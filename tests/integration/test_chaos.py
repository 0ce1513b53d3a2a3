"""A short run of ``make chaos``: real workers, brokers and features under a few faults (promises D1, D4, E2, F1)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.faults.report import counts, table, write_page
from loadtests.faults.run import passed, run
from loadtests.faults.table import FAULTS, schedule
from loadtests.faults.world import Shape

SEED = 77
SECONDS = 20
NAMES = ("kill", "sigterm", "poison", "bad_rows", "redis_node", "writer", "broker")


@pytest.mark.integration
@pytest.mark.timeout(420)
def test_d1_d4_e2_f1_faults_lose_nothing_and_features_are_right(tmp_path: Path) -> None:
    """D1.2, D4.1, F1.6. It waits for what it started, not for a time; on two busy cores that takes a minute or two."""
    faults = [FAULTS[name] for name in NAMES]
    found = run(Shape(workers=2, rate=500.0, seed=SEED, cluster=True), faults, SECONDS, print)
    verdict = found["verdict"]
    assert passed(verdict), (verdict, found["remarks"])
    assert verdict["predicted"] == SECONDS * 500
    assert all(found["fast_features"][fate] > 0 for fate in ("fresh", "missing"))
    assert verdict["dead_letters"] > 0
    assert (found["unsent"], found["uncommitted"]) == (0, 0)
    assert found["kills"] > 0
    assert all(found["by_fault"][name]["strikes"] > 0 for name in NAMES)
    assert all("error" not in strike for strike in found["strikes"])

    (tmp_path / f"chaos-{SEED}.json").write_text(json.dumps(found))
    assert f"Seed {SEED}: passed" in write_page(tmp_path).read_text()
    assert (table([found]).row_count, counts([found]).row_count) == (len(NAMES), 1)


def test_a_seed_repeats_its_schedule() -> None:
    faults = list(FAULTS.values())
    first = [(strike.at_s, strike.fault.name, strike.seed) for strike in schedule(faults, 120.0, 5)]
    assert first == [(strike.at_s, strike.fault.name, strike.seed) for strike in schedule(faults, 120.0, 5)]
    assert first != [(strike.at_s, strike.fault.name, strike.seed) for strike in schedule(faults, 120.0, 6)]
    assert {name for _, name, _ in first} == set(FAULTS)


@pytest.mark.parametrize("name", ["lost", "wrong", "out_of_order", "unread"])
def test_one_of_these_fails_a_run(name: str) -> None:
    verdict = dict.fromkeys(("lost", "wrong", "out_of_order", "unread"), 0)
    assert passed(verdict)
    assert not passed({**verdict, name: 1})
