"""The baseline's job under faults, judged from outside: ``make chaos``, or ``python -m loadtests.faults --help``. See docs/chaos.md."""

from __future__ import annotations

import argparse
import json
import logging
import random
import signal
import sys
from pathlib import Path

from rich.console import Console

from loadtests.faults.report import counts, table, write_page
from loadtests.faults.run import run
from loadtests.faults.table import FAULTS
from loadtests.faults.world import Shape
from streamml.errors import StreamMLError

RESULTS = Path(__file__).parents[1] / "results"


def main() -> int:
    """Run; 1 where a record was lost, a prediction wrong, or one out of order."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.faults", description=__doc__.partition(":")[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=2000.0, help="events per second")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--faults", help="names, separated by commas; default: all that fit this Redis")
    parser.add_argument("--cluster", action="store_true", help="a Redis Cluster: three masters, each with a replica")
    parser.add_argument("--alone", action="store_true", help="a run for each fault, instead of one for all of them")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(1_000_000), help="repeats a schedule"
    )
    parser.add_argument("--guarantee", choices=("at_least_once", "exactly_once"), default="at_least_once")
    parser.add_argument("--who", choices=("worker", "loop"), default="worker", help="loop: one written by hand")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--logs", type=Path, help="keep the workers' and servers' logs in this folder")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    fitting = [name for name, fault in FAULTS.items() if fault.fits(cluster=arguments.cluster)]
    names = arguments.faults.split(",") if arguments.faults else fitting
    if unknown := [name for name in names if name not in FAULTS]:
        parser.error(f"there is no fault {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    if unfit := [name for name in names if name not in fitting]:
        which = "one Redis, so without" if arguments.cluster else "a Redis Cluster:"
        parser.error(f"{', '.join(unfit)} needs {which} --cluster")
    if arguments.cluster and arguments.who == "loop":
        parser.error("the hand-written loop knows no Redis Cluster; leave --cluster out")
    # What was started and mounted is to be ended and unmounted, however this ends.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # While the broker is down on purpose, clients need not say so.
    logging.getLogger("streamml.kafka").setLevel(logging.CRITICAL)
    # Where no terminal says how wide it is, a log is: names and counts are there to be read.
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 160)
    console.print(f"--seed {arguments.seed}")
    runs = []
    for chosen in [[name] for name in names] if arguments.alone else [names]:
        shape = Shape(
            arguments.workers,
            arguments.rate,
            arguments.seed,
            arguments.guarantee,
            small_disk="disk_full" in chosen,
            who=arguments.who,
            cluster=arguments.cluster,
        )
        kind = "-loop" if arguments.who == "loop" else "-cluster" if arguments.cluster else ""
        suffix = kind + (f"-{chosen[0]}" if arguments.alone else "")
        logs = arguments.logs and arguments.logs / f"chaos-{arguments.seed}{suffix}"
        found = run(shape, [FAULTS[name] for name in chosen], arguments.seconds, console.print, logs)
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / f"chaos-{arguments.seed}{suffix}.json").write_text(json.dumps(found) + "\n")
        runs.append(found)
    write_page(arguments.out)
    console.print(table(runs))
    console.print(counts(runs))
    for remark in (remark for one in runs for remark in one["remarks"]):
        console.print(remark, highlight=False, markup=False)
    if arguments.json:
        print(json.dumps(runs))
    return 0 if all(one["passed"] for one in runs) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamMLError as error:
        sys.exit(f"Error: {error}")
