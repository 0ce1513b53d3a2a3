"""What a fast set beside a slow one costs: drains with both, and with the slow one alone, in turn.

``python -m loadtests.baseline.two_sets [EVENTS [ROUNDS]]``.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from statistics import median

import numpy as np

from loadtests.baseline.commands import COMMANDS
from loadtests.baseline.drains import backlog_of, beside, by_round, in_turn
from loadtests.baseline.load import ACCOUNTS, feature_columns
from loadtests.baseline.timing import Servers, drain
from loadtests.baseline.topology import RECENT, recent
from streamml.features import FeatureWriter


def _two(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
    return [*COMMANDS["worker"](servers, topic_in, topic_out, count), "at_least_once", "", "two"]


def _write(url: str) -> None:
    """Fast values of every account, of the time when the events' first may have been written."""
    columns = feature_columns()
    hour_ago = np.datetime64("now", "us") - np.timedelta64(1, "h")
    with FeatureWriter(recent, url=url) as writer:
        values = {name: columns[name] for name in RECENT}
        writer.write({"account": np.arange(ACCOUNTS), "event_time": np.full(ACCOUNTS, hour_ago), **values})


def main(events: int = 400_000, rounds: int = 3) -> None:
    """Print the medians and each round's ratio as JSON."""
    commands = {"one": COMMANDS["worker"], "two": _two}
    tell = partial(print, file=sys.stderr)
    with backlog_of(events, tell) as (servers, backlog):
        _write(servers.redis_url)
        drains = in_turn(commands, rounds, tell, partial(drain, servers, backlog))
    cpu = by_round(*([one.cpu_s_per_million for one in drains[who]] for who in ("two", "one")))
    found = beside(drains, "two", "one")
    print(json.dumps({**found, "cpu_ratio": median(cpu), "cpu_ratios": cpu}, indent=2))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
