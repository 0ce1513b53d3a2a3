"""Batch policies in virtual time, the worker's own among them: ``python -m loadtests.simulate``. See docs/guide/speed.md."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from loadtests.simulate import ours
from loadtests.simulate.arrivals import Times, bursty, poisson
from loadtests.simulate.published import BUDGET_S, CAPACITY, NO_MOST, aimd, batch_s, bentoml, set_aside, waiting
from loadtests.simulate.report import Result, table, write

RESULTS: Final = Path(__file__).parents[1] / "results"
OUTAGE_S, RATE = 60.0, 8_000.0
LOADS: Final[Mapping[str, Callable[[int], Times]]] = {
    "Poisson 6,000/s": lambda seed: poisson(6_000, seed),
    "Poisson 14,000/s": lambda seed: poisson(14_000, seed),
    "bursty 6,000/s": lambda seed: bursty(6_000, seed),
    "bursty 10,000/s": lambda seed: bursty(10_000, seed),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """One line of the table.

    Args:
        run: latencies by arrivals.
        most: rows of its largest batch, which say how fast it catches up; 0 where it gives up what is late.
    """

    run: Callable[[Times], Times]
    most: int
    ours: bool = False


POLICIES: Final[Mapping[str, Policy]] = {
    "wait at most 5 ms, at most 64 rows": Policy(lambda times: waiting(times, 0.005, 64), 64),
    "wait at most 10 ms, at most 256 rows": Policy(lambda times: waiting(times, 0.010, 256), 256),
    "AIMD on the cap (Clipper)": Policy(aimd, 361),
    "no timer, cap from capacity": Policy(lambda times: waiting(times, 0.0, CAPACITY), CAPACITY),
    "BentoML's rule": Policy(bentoml, 0),
    "no timer, set aside": Policy(set_aside, 0),
    "streamml, on_late='score'": Policy(lambda times: ours.simulate(times, "score")[0], NO_MOST, ours=True),
    "streamml, on_late='last'": Policy(lambda times: ours.simulate(times, "last")[0], NO_MOST, ours=True),
    "streamml, on_late='dead_letter'": Policy(lambda times: ours.simulate(times, "dead_letter")[0], 0, ours=True),
}


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.simulate", description=__doc__.partition(":")[0])
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    found = compare(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "simulate.json").write_text(json.dumps(found, indent=1) + "\n")
    write(found, arguments.out)
    if arguments.json:
        print(json.dumps(found))
    else:
        Console().print(table(found))


def compare(seed: int) -> Result:
    """All policies under all loads."""
    loads = {name: make(seed) for name, make in LOADS.items()}
    policies = {
        name: {
            "ours": policy.ours,
            "loads": {load: judge(policy.run(times)) for load, times in loads.items()},
            "catch_up_s": round(catch_up_s(name, policy), 1),
        }
        for name, policy in POLICIES.items()
    }
    return {"seed": seed, "budget_ms": BUDGET_S * 1000, "loads": list(loads), "policies": policies}


def judge(latencies: Times) -> dict[str, float]:
    """Percentiles over events that were scored, and the share of all that were not within the budget."""
    scored = latencies[np.isfinite(latencies)] * 1000.0
    p50, p99 = np.percentile(scored, [50, 99])
    return {
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "miss": round(float((latencies > BUDGET_S).mean()), 4),
    }


def catch_up_s(name: str, policy: Policy) -> float:
    """Seconds until the backlog of the outage is gone; 0 where late events are given up."""
    if not policy.most:
        return 0.0
    if policy.ours:
        return ours.catch_up_s(OUTAGE_S, RATE, "last" if "last" in name else "score")
    speed = policy.most / batch_s(policy.most)
    return OUTAGE_S * RATE / (speed - RATE)


if __name__ == "__main__":
    main()
