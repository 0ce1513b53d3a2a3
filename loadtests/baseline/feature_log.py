"""What a feature log costs: drains with and without one in turn. ``python -m loadtests.baseline.feature_log [EVENTS [ROUNDS]]``."""

from __future__ import annotations

import json
import sys
from statistics import median

from loadtests.baseline.commands import COMMANDS
from loadtests.baseline.load import load_features, produce_all
from loadtests.baseline.timing import Backlog, Drain, Servers, drain, make_topic, started_servers


def _logging(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
    log = make_topic(servers, f"{topic_out}.features")
    return [*COMMANDS["worker"](servers, topic_in, topic_out, count), "at_least_once", log]


def main(events: int = 400_000, rounds: int = 3) -> None:
    """Print the medians and each round's ratio as JSON."""
    commands = {"without": COMMANDS["worker"], "with": _logging}
    drains: dict[str, list[Drain]] = {who: [] for who in commands}
    with started_servers(lambda said: print(said, file=sys.stderr)) as servers:
        backlog = Backlog(make_topic(servers, "baseline.events"), events)
        make_topic(servers, "baseline.dlq")
        load_features(servers.redis_url)
        produce_all(servers.brokers, backlog.topic, backlog.events)
        drain(servers, backlog, COMMANDS["bare"])
        for number in range(rounds):
            print(f"Drain {number + 1} of {rounds}", file=sys.stderr)
            for who, command in commands.items():
                drains[who].append(drain(servers, backlog, command))
    pairs = zip(drains["with"], drains["without"], strict=True)
    ratios = [round(one.events_per_s / other.events_per_s, 3) for one, other in pairs]
    rates = {who: round(median(one.events_per_s for one in done)) for who, done in drains.items()}
    seconds = {who: round(median(one.cpu_s_per_million for one in done), 2) for who, done in drains.items()}
    found = {"events_per_s": rates, "cpu_s_per_million": seconds, "ratio": median(ratios), "ratios": ratios}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
