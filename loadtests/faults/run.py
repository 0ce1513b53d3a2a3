"""One run: the schedule is played, everything settles, and what came out is counted."""

from __future__ import annotations

import bisect
import random
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.faults.stream import prepare
from loadtests.faults.table import Fault, Strike, schedule
from loadtests.faults.world import STUCK_AFTER_S, Shape, World

PATIENCE_S = 2 * STUCK_AFTER_S
"""Without a record or an answer for so long, nothing more is waited for."""
_MOST_STRIKES_AT_ONCE = 32
Tell = Callable[[str], None]


@dataclass(slots=True)
class Struck:
    """A strike that happened; times in seconds of the monotonic clock."""

    name: str
    begun: float
    ended: float = 0.0
    error: str = ""


def run(shape: Shape, faults: Sequence[Fault], seconds: float, tell: Tell, logs: Path | None = None) -> dict[str, Any]:
    """Play a schedule; returns what came out, as a document. Logs are copied into the folder ``logs``."""
    tell(f"Making {int(shape.rate * seconds):,} events of seed {shape.seed}")
    stream = prepare(int(shape.rate * seconds), shape.seed)
    strikes = schedule(faults, seconds, shape.seed)
    # A child is told to end when the thread that started it does, and strikes start servers: their threads outlive the world.
    with ThreadPoolExecutor(_MOST_STRIKES_AT_ONCE, "chaos-strike") as pool, World(shape, stream, tell) as world:
        begun = time.monotonic()
        world.feeder.thread.start()
        tell(f"Playing {len(strikes)} strikes in {seconds:.0f} s")
        struck = _play(world, strikes, begun, pool)
        unsent, stop = _settle(world, tell)
        if logs is not None:
            world.copy_logs(logs)
        return _document(world, faults, seconds, begun, struck, unsent, stop)


def _play(world: World, strikes: Sequence[Strike], begun: float, pool: ThreadPoolExecutor) -> list[Struck]:
    struck: list[Struck] = []
    running: list[Future[None]] = []
    for strike in strikes:
        if strike.fault.name in world.skipped:
            continue
        world.over.wait(max(0.0, begun + strike.at_s - time.monotonic()))
        world.crew.check()
        struck.append(Struck(strike.fault.name, time.monotonic()))
        running.append(pool.submit(_strike, world, strike, struck[-1]))
    world.feeder.thread.join()
    for one in running:
        one.result()
    return struck


def _strike(world: World, strike: Strike, struck: Struck) -> None:
    try:
        strike.fault.strike(world, random.Random(strike.seed))
    except Exception as error:  # noqa: BLE001  it is in the report, and fails the run
        struck.error = f"{type(error).__name__}: {error}"
    struck.ended = time.monotonic()


def _settle(world: World, tell: Tell) -> tuple[int, str]:
    """Wait until every record has ended or nothing moves, then send the workers home.

    Returns:
        How many records the broker never got; and, where the run came to a stop, who had what then.
    """
    tell("Waiting until everything has settled")
    unsent = world.feeder.flush(PATIENCE_S)
    judge, stop = world.judge, ""
    # What a killed worker had published and not committed has its answers: it waits for who comes after it all the same.
    while judge.read < world.feeder.sent - unsent or judge.open or any(world.uncommitted().values()):
        if time.monotonic() - judge.moved_at > PATIENCE_S:
            stop = f"Nothing had moved for {PATIENCE_S:.0f} s: {world.group()}"
            break
        world.over.wait(0.2)
    world.workers_leave()
    ends = world.ends()
    deadline = time.monotonic() + PATIENCE_S
    while not judge.at_end(ends) and time.monotonic() < deadline:
        world.over.wait(0.05)
    return unsent, stop


def _document(
    world: World,
    faults: Sequence[Fault],
    seconds: float,
    begun: float,
    struck: Sequence[Struck],
    unsent: int,
    stop: str,
) -> dict[str, Any]:
    judge, codes = world.judge, world.crew.codes
    kills = codes[-signal.SIGKILL]
    verdict = judge.verdict().document()
    verdict["unread"] = world.feeder.sent - unsent - judge.read
    ended = begun + seconds
    marks = [_mark(judge.first_at, judge.duplicate_at, struck, number, begun, ended) for number in range(len(struck))]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": world.shape.seed,
        "faults": {fault.name: fault.does for fault in faults},
        "skipped": world.skipped,
        "who": world.shape.who,
        "workers": world.shape.workers,
        "rate": world.shape.rate,
        "seconds": seconds,
        "guarantee": world.shape.guarantee,
        "cluster": world.shape.cluster,
        "fast_features": dict(sorted(world.writes.fates.items())),
        "session_s": world.shape.session_s,
        "passed": passed(verdict),
        "verdict": verdict,
        "dropped": judge.dropped,
        "unsent": unsent,
        "uncommitted": sum(world.uncommitted().values()),
        "kills": kills,
        "duplicates_per_kill": round(verdict["duplicated"] / kills, 1) if kills else None,
        "exits": {str(code): count for code, count in sorted(codes.items())},
        "by_fault": _by_fault(marks),
        "settled_s": round(max([*judge.first_at, begun]) - ended, 1),
        "remarks": [*filter(None, [stop]), *judge.remarks],
        "strikes": marks,
        "timeline": _timeline(judge, begun),
    }


def passed(verdict: dict[str, int]) -> bool:
    """Whether a run went as it always has to."""
    return not any(verdict[name] for name in ("lost", "wrong", "out_of_order", "unread"))


def _mark(
    first: list[float], again: list[float], struck: Sequence[Struck], number: int, begun: float, ended: float
) -> dict[str, Any]:
    """A strike, and what followed until the next."""
    one = struck[number]
    until = struck[number + 1].begun if number + 1 < len(struck) else max(ended, one.ended)
    return {
        "name": one.name,
        "at_s": round(one.begun - begun, 2),
        "ended_s": round(one.ended - begun, 2),
        "silence_s": round(_silence(first, one.begun, until), 2),
        "duplicates": bisect.bisect(again, until) - bisect.bisect(again, one.begun),
        **({"error": one.error} if one.error else {}),
    }


def _silence(arrivals: list[float], since: float, until: float) -> float:
    """The longest time without an arrival that began between two moments; what lay before does not count."""
    place, end = bisect.bisect(arrivals, since), bisect.bisect(arrivals, until)
    points = [since, *arrivals[place : end + 1]]
    return float(np.diff(points).max(initial=0.0))


def _by_fault(marks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(mark["name"] for mark in marks):
        mine = [mark for mark in marks if mark["name"] == name]
        duplicates = [mark["duplicates"] for mark in mine]
        found[name] = {
            "strikes": len(mine),
            "lasted_s": _middle_and_most([mark["ended_s"] - mark["at_s"] for mark in mine]),
            "silence_s": _middle_and_most([mark["silence_s"] for mark in mine]),
            "duplicates": {"mean": round(float(np.mean(duplicates)), 1), "most": max(duplicates)},
            "failed": sum("error" in mark for mark in mine),
        }
    return found


def _middle_and_most(values: list[float]) -> dict[str, float]:
    return {"median": round(float(np.median(values)), 2), "most": round(max(values), 2)}


def _timeline(judge: Any, begun: float) -> dict[str, list[int]]:
    """Records per second of the run, as the judge met them."""
    moments = {
        "produced": judge.produced_at,
        "predicted": judge.first_at,
        "duplicated": judge.duplicate_at,
        "dead_letters": judge.letter_at,
    }
    length = int(max([begun, *(at[-1] for at in moments.values() if at)]) - begun) + 1
    return {
        name: np.bincount((np.array(at, float) - begun).clip(0).astype(int), minlength=length).tolist()
        for name, at in moments.items()
    }
