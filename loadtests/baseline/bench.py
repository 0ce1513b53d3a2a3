"""The worker, at least once and exactly once, next to a bare client loop and a hand-written one: ``streamml bench``.

Drains are timed by the broker, whose own warming up is drained away first. Latencies are from the event's record time to its arrival
at a plain consumer. All have their turn in each round, and each round begins with another one; figures are medians.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Final

import numpy as np

from loadtests.baseline.commands import COMMANDS
from loadtests.baseline.drains import backlog_of, by_round, in_turn
from loadtests.baseline.load import produce_steadily
from loadtests.baseline.machine import conditions
from loadtests.baseline.timing import Command, Drain, Servers, Tell, drain, make_topic

Percentiles = dict[str, float]
"""Milliseconds by ``p50``, ``p95`` and ``p99``."""
_WARM_UP_ROUNDS: Final = 2


@dataclass(frozen=True)
class BenchOptions:
    """How much is measured.

    Args:
        events: size of the backlog.
        rounds: drains of each, worker and bare loop in turn.
        rates: events per second of the latency runs.
        latency_rounds: latency runs of each; many short ones, as a busy neighbour spoils all of one.
        seconds: length of a latency run.
    """

    events: int = 1_000_000
    rounds: int = 3
    rates: tuple[int, ...] = (2_000, 20_000)
    latency_rounds: int = 5
    seconds: float = 6.0


def bench(options: BenchOptions, tell: Tell) -> dict[str, Any]:
    """Measure; returns the result as a document."""
    with backlog_of(options.events, tell, warm_up=2) as (servers, backlog):
        drains = in_turn(COMMANDS, options.rounds, tell, partial(drain, servers, backlog))
        latencies = {str(rate): _latencies(servers, rate, options, tell) for rate in options.rates}
    return {
        "conditions": conditions(options.events, options.rounds),
        **_figures(drains),
        "latency_ms": {rate: {who: _middle(rounds) for who, rounds in by.items()} for rate, by in latencies.items()},
        "latency_ratios": {rate: _ratios(by["worker"], by["bare"]) for rate, by in latencies.items()},
    }


def _latencies(servers: Servers, rate: int, options: BenchOptions, tell: Tell) -> dict[str, list[Percentiles]]:
    timed = partial(_latency, servers, rate, options)
    commands = {who: COMMANDS[who] for who in ("bare", "worker", "hand_written")}
    # Its compiler takes a minute of small requests, and until then two cores are not enough for everybody.
    in_turn(
        commands, _WARM_UP_ROUNDS, tell, timed, f"Warming up the broker at {rate:,} events/s: rounds that do not count"
    )
    return in_turn(commands, options.latency_rounds, tell, timed, f"Latency at {rate:,} events/s")


def _middle(rounds: Sequence[Percentiles]) -> Percentiles:
    return {name: round(median(one[name] for one in rounds), 2) for name in rounds[0]}


def _ratios(of: Sequence[Percentiles], to: Sequence[Percentiles]) -> dict[str, dict[str, Any]]:
    """How many times as long, round by round, and the median of that."""
    rounds = {name: by_round([one[name] for one in of], [other[name] for other in to]) for name in of[0]}
    return {name: {"median": median(found), "rounds": found} for name, found in rounds.items()}


def _latency(servers: Servers, rate: int, options: BenchOptions, command: Command) -> Percentiles:
    topic_in = make_topic(servers, f"in.{uuid.uuid4().hex}")
    topic_out = make_topic(servers, f"out.{uuid.uuid4().hex}")
    process = subprocess.Popen(
        command(servers, topic_in, topic_out, sys.maxsize), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    watcher = subprocess.Popen(
        [sys.executable, "-m", "loadtests.baseline.watcher", servers.brokers, topic_out],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watcher.stdout is not None
        produce_steadily(servers.brokers, topic_in, 100, 2.0)
        watcher.stdout.readline()  # The first record came through: everybody is there.
        produce_steadily(servers.brokers, topic_in, rate, options.seconds)
    finally:
        process.terminate()
        process.wait()
        watcher.terminate()
        printed = watcher.communicate()[0]
    latencies = np.array(json.loads(printed.strip().splitlines()[-1]))
    # The first second belongs to those who are still warming up.
    kept = latencies[200 + rate :]
    return {f"p{share}": float(np.percentile(kept, share)) for share in (50, 95, 99)}


def _figures(drains: dict[str, list[Drain]]) -> dict[str, Any]:
    def middle(who: str, name: str) -> float:
        return float(median(getattr(one, name) for one in drains[who]))

    def ratios(of: str, to: str) -> list[float]:
        return by_round(*([one.events_per_s for one in drains[who]] for who in (of, to)))

    to_bare, to_worker, to_hand = (
        ratios("worker", "bare"),
        ratios("exactly_once", "worker"),
        ratios("worker", "hand_written"),
    )
    return {
        "events_per_s": {who: round(middle(who, "events_per_s")) for who in drains},
        "ratio": round(median(to_bare), 3),
        "ratios": to_bare,
        "hand_written_ratio": round(median(to_hand), 3),
        "hand_written_ratios": to_hand,
        "exactly_once_ratio": round(median(to_worker), 3),
        "exactly_once_ratios": to_worker,
        "cpu_s_per_million": {who: round(middle(who, "cpu_s_per_million"), 2) for who in drains},
        "us_per_event": {who: round(1e6 / middle(who, "events_per_s"), 2) for who in drains},
        "us_per_row_by_step": json.loads(drains["worker"][-1].printed)["us_per_row"],
        "resident_mb": {
            "early": round(middle("worker", "early_mb")),
            "most": round(middle("worker", "most_mb")),
        },
    }
