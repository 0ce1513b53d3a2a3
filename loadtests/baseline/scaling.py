"""Where more workers stop to help: the backlog drained by ``streamml run --workers N`` beside the bare loop.

``python -m loadtests.baseline.scaling``. With events per second goes what the broker and the workers used of the processor: once
their sum is all that the machine has, more workers share what there is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from loadtests.baseline.commands import COMMANDS
from loadtests.baseline.drains import backlog_of, in_turn
from loadtests.baseline.machine import conditions
from loadtests.baseline.timing import Backlog, Command, Servers, Tell, drain

_JOB: Final = Path(__file__).parent / "scaled.py"


def crew(workers: int) -> Command:
    """The command line of so many workers in one group."""

    def command(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
        named = {"SCALED_GROUP": f"scaled-{uuid.uuid4().hex[:8]}", "SCALED_IN": topic_in, "SCALED_OUT": topic_out}
        environment = {**named, "STREAMML_BROKERS": servers.brokers, "STREAMML_REDIS_URL": servers.redis_url}
        set_by = [f"{name}={value}" for name, value in environment.items()]
        return ["env", *set_by, sys.executable, "-m", "streamml", "run", str(_JOB), "--workers", str(workers), "--json"]

    return command


def scaling(events: int, rounds: int, most: int, tell: Tell) -> dict[str, Any]:
    """Drain with each number of workers, in turn; medians."""
    commands = {
        "bare loop": COMMANDS["bare"],
        **{f"{workers} workers": crew(workers) for workers in range(1, most + 1)},
    }
    with backlog_of(events, tell) as (servers, backlog):
        found = in_turn(commands, rounds, tell, partial(_timed, servers, backlog))
    middles = {
        who: {name: round(median(one[name] for one in rows), 2) for name in rows[0]} for who, rows in found.items()
    }
    return {"conditions": conditions(events, rounds), "drains": middles}


def _timed(servers: Servers, backlog: Backlog, command: Command) -> dict[str, float]:
    broker = _cpu_of(servers.broker_pid)
    before, began = broker(), time.monotonic()
    done = drain(servers, backlog, command)
    took = time.monotonic() - began
    # Of the whole run, start included, as what the broker does for a start is of the same kind.
    used = (broker() - before, done.cpu_s_per_million * backlog.events / 1e6)
    return {
        "events_per_s": done.events_per_s,
        "broker_cpu_s": used[0],
        "workers_cpu_s": used[1],
        "cores_busy": sum(used) / took,
    }


def _cpu_of(pid: int) -> Callable[[], float]:
    """Processor seconds that a process has used so far."""
    stat, tick = Path(f"/proc/{pid}/stat"), os.sysconf("SC_CLK_TCK")

    def seconds() -> float:
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / tick

    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.baseline.scaling", description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=3, help="most workers")
    parser.add_argument("--out", type=Path, help="also write the result here, as JSON")
    arguments = parser.parse_args()
    found = scaling(
        arguments.events, arguments.rounds, arguments.workers, lambda text: print(f"{text} …", file=sys.stderr)
    )
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["drains"], indent=1))


if __name__ == "__main__":
    main()
