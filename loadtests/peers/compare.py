"""Runs of all who do the job, in turn: draining a backlog, and how old predictions are at a steady rate."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from loadtests.baseline.commands import COMMANDS
from loadtests.baseline.load import load_features, produce_all, produce_steadily
from loadtests.baseline.machine import conditions
from loadtests.baseline.timing import Backlog, Command, Drain, Servers, Tell, drain, ended, make_topic, started_servers

ENVIRONMENTS: Final = Path(__file__).parents[2] / ".venv-peers"
_PATIENCE_S: Final = 120.0
"""Nobody gets longer for a backlog, or for its first prediction."""
_GRACE_S: Final = 1.0
_WARM_UP_S: Final = 1.0


@dataclass(frozen=True)
class Contender:
    """Who does the job.

    Args:
        package: what it is installed as; empty for what is in this repository.
        slow: it gets the small backlog.
        ours: it is this project's worker.
    """

    title: str
    command: Command
    package: str = ""
    slow: bool = False
    ours: bool = False


def _peer(name: str) -> Command:
    def command(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
        module = f"loadtests.peers.with_{name}"
        return [str(interpreter(name)), "-m", module, servers.brokers, servers.redis_url, topic_in, topic_out]

    return command


def interpreter(name: str) -> Path:
    """Python of a peer's own environment."""
    return ENVIRONMENTS / name / "bin" / "python"


PEERS: Final[Mapping[str, Contender]] = {
    "pathway": Contender("Pathway", _peer("pathway"), "pathway"),
    "bytewax": Contender("Bytewax", _peer("bytewax"), "bytewax"),
    "faststream": Contender("FastStream", _peer("faststream"), "faststream", slow=True),
    "quix": Contender("Quix Streams", _peer("quix"), "quixstreams", slow=True),
    "faust": Contender("Faust", _peer("faust"), "faust-streaming", slow=True),
}
OURS: Final[Mapping[str, Contender]] = {
    "bare": Contender("bare loop: copies, no work at all", COMMANDS["bare"]),
    "hand_written": Contender("hand-written loop", COMMANDS["hand_written"]),
    "worker": Contender("streamml", COMMANDS["worker"], ours=True),
}


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Args:
        events: size of the backlog.
        slow_events: size of that for the slow ones.
        rounds: runs of each, all in turn.
        rate: events per second while latency is measured.
        seconds: how long it is.
    """

    events: int = 500_000
    slow_events: int = 50_000
    rounds: int = 3
    rate: int = 2_000
    seconds: float = 10.0


@dataclass(frozen=True)
class Latency:
    """Age of predictions when they arrived, in ms, and the share of events that were answered a second after the last."""

    p50: float
    p99: float
    answered: float


@dataclass
class Found:
    """What was measured of one; ``problem`` says why something was not."""

    drains: list[Drain] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    problem: str = ""


def compare(names: Sequence[str], options: Options, tell: Tell) -> dict[str, Any]:
    """Measure those peers beside ours; returns the result as a document."""
    contenders = {**OURS, **{name: PEERS[name] for name in names}}
    found = {name: Found() for name in contenders}
    with started_servers(tell) as servers:
        backlogs = _backlogs(servers, options, tell)
        for number in range(options.rounds):
            for name, one in contenders.items():
                tell(f"Round {number + 1} of {options.rounds}: {one.title}")
                _measure(servers, backlogs[one.slow], one, found[name], options)
    rows = {name: _row(name, contenders[name], found[name], backlogs, options) for name in contenders}
    told = {"rate": options.rate, "seconds": options.seconds, "slow_events": options.slow_events}
    return {"conditions": {**conditions(options.events, options.rounds), **told}, "contenders": rows}


def _backlogs(servers: Servers, options: Options, tell: Tell) -> dict[bool, Backlog]:
    """The large one, and by ``True`` the small one."""
    tell(f"Writing backlogs of {options.events:,} and {options.slow_events:,} events")
    make_topic(servers, "baseline.dlq")
    load_features(servers.redis_url)
    backlogs = {
        False: Backlog(make_topic(servers, "baseline.events"), options.events),
        True: Backlog(make_topic(servers, "baseline.events.few"), options.slow_events),
    }
    for backlog in backlogs.values():
        produce_all(servers.brokers, backlog.topic, backlog.events)
    tell("Warming up the broker: runs that do not count")
    for _ in range(2):
        drain(servers, backlogs[False], COMMANDS["bare"])
    latency(servers, COMMANDS["bare"], options)
    return backlogs


def _measure(servers: Servers, backlog: Backlog, one: Contender, found: Found, options: Options) -> None:
    """A drain and a latency run; whoever failed is not tried again."""
    if found.problem:
        return
    try:
        found.drains.append(drain(servers, backlog, one.command, _PATIENCE_S))
        found.latencies.append(latency(servers, one.command, options))
    except (TimeoutError, RuntimeError) as error:
        found.problem = str(error)


def latency(servers: Servers, command: Command, options: Options) -> Latency:
    """Let a process answer events that come at a steady rate.

    Raises:
        TimeoutError: it answered none in two minutes.
        RuntimeError: it answered none but the first.
    """
    topic_in = make_topic(servers, f"in.{uuid.uuid4().hex}")
    topic_out = make_topic(servers, f"out.{uuid.uuid4().hex}")
    watching = [sys.executable, "-m", "loadtests.peers.watcher", servers.brokers, topic_in, topic_out]
    process = subprocess.Popen(
        command(servers, topic_in, topic_out, sys.maxsize),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    watcher = subprocess.Popen(watching, stdout=subprocess.PIPE, text=True)
    try:
        assert watcher.stdout is not None
        # Numbers begin anew with each call: those of the first come twice, and count for nothing.
        twice = produce_steadily(servers.brokers, topic_in, 100, 2.0)
        if not select.select([watcher.stdout], [], [], _PATIENCE_S)[0]:
            raise TimeoutError(f"no prediction in {_PATIENCE_S:.0f} s")
        sent = produce_steadily(servers.brokers, topic_in, options.rate, options.seconds)
        time.sleep(_GRACE_S)
    finally:
        ended(process)
        printed = ended(watcher)
    return judged(json.loads(printed.strip().splitlines()[-1]), sent, max(twice, int(options.rate * _WARM_UP_S)))


def judged(arrived: Sequence[tuple[int, float]], sent: int, warming_up: int) -> Latency:
    """Percentiles over the first prediction of each event but those of the warm-up.

    Args:
        arrived: number of the event and ms, in order of arrival.
        sent: how many events there were.
        warming_up: how many of them do not count.

    Raises:
        RuntimeError: no event that counts was answered.
    """
    first = dict(reversed(arrived))
    kept = [ms for number, ms in first.items() if number >= warming_up]
    if not kept:
        raise RuntimeError("no event was answered in time")
    p50, p99 = np.percentile(kept, [50, 99])
    return Latency(round(float(p50), 1), round(float(p99), 1), round(len(kept) / (sent - warming_up), 3))


def _row(name: str, one: Contender, found: Found, backlogs: Mapping[bool, Backlog], options: Options) -> dict[str, Any]:
    drains, latencies = found.drains, found.latencies
    return {
        "title": one.title,
        "ours": one.ours,
        "version": _version(name, one.package) if one.package else "",
        "events": backlogs[one.slow].events,
        "events_per_s": round(median(drain.events_per_s for drain in drains)) if drains else None,
        "events_per_s_rounds": [round(drain.events_per_s) for drain in drains],
        "cpu_s_per_million": round(median(drain.cpu_s_per_million for drain in drains), 1) if drains else None,
        "most_mb": round(max(drain.most_mb for drain in drains)) if drains else None,
        "latency_ms": {
            figure: median(getattr(one, figure) for one in latencies) for figure in ("p50", "p99", "answered")
        }
        if latencies
        else None,
        "latency_ms_rounds": [asdict(one) for one in latencies],
        "problem": found.problem,
    }


def _version(name: str, package: str) -> str:
    asked = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([interpreter(name), "-c", asked], check=True, capture_output=True, text=True).stdout.strip()
