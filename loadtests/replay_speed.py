"""How quick a replay is beside a live worker that catches up: ``python -m loadtests.replay_speed [EVENTS [ROUNDS]]``.

Drains of the job of the benchmark in turn, timed by the broker. Prints each round's ratio as JSON; ends with 1 below 0.9.
"""

from __future__ import annotations

import json
import sys
import uuid
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import loadtests.baseline.worker
import streamml as sm
from loadtests.baseline.commands import COMMANDS
from loadtests.baseline.drains import backlog_of, beside, in_turn
from loadtests.baseline.timing import Servers, drain
from loadtests.baseline.topology import Event, topology
from streamml.compose.locate import Located
from streamml.ops.replay.plan import Wanted, planned
from streamml.ops.replay.run import Manner, begin, carry_out, score
from streamml.ops.replay.span import Asked
from streamml.ops.run import StopSignal
from streamml.settings.settings import Settings

_LEAST: Final = 0.9


def _replay(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "loadtests.replay_speed",
        "work",
        servers.brokers,
        servers.redis_url,
        topic_in,
        topic_out,
    ]


def work(brokers: str, redis_url: str, topic_in: str, topic_out: str) -> None:
    """Replay all of a topic into another one."""
    job = sm.Topology(
        f"bench-{uuid.uuid4().hex[:8]}",
        source=sm.Source(topic_in, schema=Event, start="earliest"),
        steps=topology.steps,
        sink=topology.sink.into("baseline.predictions"),
        dead_letters=topology.dead_letters,
    )
    settings = Settings.model_validate({"brokers": brokers, "redis": {"url": redis_url}})
    located = Located(job, Path(loadtests.baseline.worker.__file__).parent)
    stop = StopSignal()
    wanted = Wanted(Asked("1970-01-01T00:00:00Z", datetime.now(UTC).isoformat()), into=topic_out)
    with planned(located, settings, wanted) as (plan, parts):
        replay = begin(job, settings, plan.draft)
        carry_out(job, settings, replay, lambda: score(job, parts, settings, replay, Manner(), stop), stop)


def main(events: int = 400_000, rounds: int = 3) -> int:
    """Measure; the exit code."""
    commands = {"live": COMMANDS["worker"], "replay": _replay}
    tell = partial(print, file=sys.stderr)
    with backlog_of(events, tell) as (servers, backlog):
        drains = in_turn(commands, rounds, tell, partial(drain, servers, backlog))
    found = beside(drains, "replay", "live")
    print(json.dumps(found, indent=2))
    return 0 if found["ratio"] >= _LEAST else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(*sys.argv[2:])
    else:
        sys.exit(main(*map(int, sys.argv[1:])))
