"""The backlog of the job, drained by several in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, TypeVar

from loadtests.baseline.commands import COMMANDS
from loadtests.baseline.load import load_features, produce_all
from loadtests.baseline.timing import Backlog, Command, Drain, Servers, Tell, drain, make_topic, started_servers

T = TypeVar("T")


@contextmanager
def backlog_of(events: int, tell: Tell, *, warm_up: int = 1) -> Iterator[tuple[Servers, Backlog]]:
    """Servers until the block ends, with the job's features and so many events, drained before ``warm_up`` times."""
    with started_servers(tell) as servers:
        tell(f"Writing a backlog of {events:,} events")
        backlog = Backlog(make_topic(servers, "baseline.events"), events)
        make_topic(servers, "baseline.dlq")
        load_features(servers.redis_url)
        produce_all(servers.brokers, backlog.topic, backlog.events)
        tell("Warming up the broker: a drain that does not count")
        for _ in range(warm_up):
            drain(servers, backlog, COMMANDS["bare"])
        yield servers, backlog


def by_round(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """How many times as much, round by round."""
    return [round(one / other, 3) for one, other in zip(of, to, strict=True)]


def beside(drains: Mapping[str, Sequence[Drain]], of: str, to: str) -> dict[str, Any]:
    """The medians of each, and how much quicker ``of`` was than ``to``, round by round and as their median; JSON takes it."""
    ratios = by_round([one.events_per_s for one in drains[of]], [other.events_per_s for other in drains[to]])
    return {
        "events_per_s": {who: round(median(one.events_per_s for one in done)) for who, done in drains.items()},
        "cpu_s_per_million": {
            who: round(median(one.cpu_s_per_million for one in done), 2) for who, done in drains.items()
        },
        "ratio": median(ratios),
        "ratios": ratios,
    }


def in_turn(
    commands: Mapping[str, Command], rounds: int, tell: Tell, timed: Callable[[Command], T], what: str = "Drain"
) -> dict[str, list[T]]:
    """What ``timed`` says of each, round by round, so that what changes about the machine changes for all.

    Each round begins with another one: who comes behind the slowest, or behind a pause, has another broker.
    """
    found: dict[str, list[T]] = {who: [] for who in commands}
    order = deque(commands)
    for number in range(rounds):
        tell(f"{what}, {number + 1} of {rounds}")
        for who in order:
            found[who].append(timed(commands[who]))
        order.rotate(-1)
    return found
