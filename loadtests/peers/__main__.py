"""The baseline's job as other frameworks do it, beside ours: ``make bench-peers``. See docs/guide/speed.md."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from loadtests.peers.compare import PEERS, Options, compare, interpreter
from loadtests.peers.report import plot, table

RESULTS: Final = Path(__file__).parents[1] / "results"


def main() -> None:
    """Run, print, write."""
    default = Options()
    parser = argparse.ArgumentParser(prog="python -m loadtests.peers", description=__doc__.partition(":")[0])
    parser.add_argument("--only", default=",".join(PEERS), help="peers, separated by commas; default: all")
    parser.add_argument("--events", type=int, default=default.events, help="size of the backlog")
    parser.add_argument("--slow-events", type=int, default=default.slow_events, help="backlog of the slow peers")
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--rate", type=int, default=default.rate, help="events/s while latency is measured")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="how long latency is measured")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    names = [name for name in arguments.only.split(",") if name]
    if unknown := [name for name in names if name not in PEERS]:
        parser.error(f"there is no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if missing := [name for name in names if not interpreter(name).exists()]:
        parser.error(f"no environment for {', '.join(missing)}: `make bench-peers` makes them, --only leaves some out")
    options = Options(arguments.events, arguments.slow_events, arguments.rounds, arguments.rate, arguments.seconds)
    found = compare(names, options, lambda text: print(f"{text} …", file=sys.stderr))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "peers.json").write_text(json.dumps(found, indent=1) + "\n")
    (arguments.out / "peers.svg").write_text(plot(found))
    if arguments.json:
        print(json.dumps(found))
    else:
        Console(width=None if sys.stdout.isatty() else 160).print(table(found))


if __name__ == "__main__":
    main()
