"""What a feature log costs: drains with and without one in turn. ``python -m loadtests.baseline.feature_log [EVENTS [ROUNDS]]``."""

from __future__ import annotations

import json
import sys
from functools import partial

from loadtests.baseline.commands import COMMANDS
from loadtests.baseline.drains import backlog_of, beside, in_turn
from loadtests.baseline.timing import Servers, drain, make_topic


def _logging(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
    log = make_topic(servers, f"{topic_out}.features")
    return [*COMMANDS["worker"](servers, topic_in, topic_out, count), "at_least_once", log]


def main(events: int = 400_000, rounds: int = 3) -> None:
    """Print the medians and each round's ratio as JSON."""
    commands = {"without": COMMANDS["worker"], "with": _logging}
    tell = partial(print, file=sys.stderr)
    with backlog_of(events, tell) as (servers, backlog):
        drains = in_turn(commands, rounds, tell, partial(drain, servers, backlog))
    print(json.dumps(beside(drains, "with", "without"), indent=2))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
