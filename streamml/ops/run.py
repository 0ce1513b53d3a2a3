"""One worker of a topology, from the first check to the summary."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol, TypeVar

from streamml.adapters.kafka.source import KafkaSource
from streamml.compose.locate import Located
from streamml.compose.parts import gather
from streamml.compose.worker import Composed, compose_worker
from streamml.engine.engine import Engine
from streamml.errors import SourceUnavailable, StreamMLError, TransientError
from streamml.ops.start import start
from streamml.ports.control import RUNNING
from streamml.ports.source import Positions
from streamml.runtime.meanwhile import meanwhile
from streamml.runtime.pulse import watched
from streamml.runtime.worker import Worker
from streamml.settings.settings import Settings
from streamml.telemetry.observer import Observer
from streamml.topology.topology import Topology

_LOG: Final = logging.getLogger("streamml.run")
_ASK_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run ends.

    Args:
        until_caught_up: end when the group has committed what was in the topics at the start.
        patience_s: how long to bear that broker or store do not answer, with ``until_caught_up`` also while it runs; ``None``:
            for ever.
    """

    until_caught_up: bool = False
    patience_s: float | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """Where a run ends.

    Args:
        positions: asks for what has to be committed.
        committed: asks for what is. Both raise `SourceUnavailable` where the broker does not answer.
    """

    positions: Callable[[], Positions]
    committed: Callable[[], Positions]


class Composable(Protocol):
    """A worker that is ready to run, and its engine."""

    @property
    def worker(self) -> Worker: ...

    @property
    def engine(self) -> Engine: ...


class StopSignal:
    """Asks a run to end; may be set from a signal handler, before the worker exists or after."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self.asked = threading.Event()

    def set(self) -> None:
        self.asked.set()
        if self._worker is not None:
            self._worker.request_stop()

    def bind(self, worker: Worker) -> None:
        """The worker to end."""
        self._worker = worker
        if self.asked.is_set():
            worker.request_stop()


def run(
    located: Located[Topology],
    settings: Settings,
    options: RunOptions,
    stop: StopSignal,
    *,
    started: Callable[[Composed, Observer], None] = lambda composed, observer: None,
) -> dict[str, Any]:
    """Run one worker until it is stopped or caught up; returns the summary.

    Args:
        stop: asks it to end.
        started: hears of the worker and the observer just before it joins its group.

    Raises:
        ConfigError: something declared or set is wrong; nothing was consumed.
        StreamMLError: the worker had to stop; nothing unsettled was committed.
    """
    topology = located.found
    with (
        gather(topology, located.repository, settings) as parts,
        _goal_of(topology, settings, options) as goal,
        ExitStack() as opened,
    ):

        def compose(observer: Observer) -> Composed:
            return opened.enter_context(compose_worker(topology, parts, settings, observer))

        return work(compose, goal, options, stop, started=started)


W = TypeVar("W", bound=Composable)


def work(
    compose: Callable[[Observer], W],
    goal: Goal | None,
    options: RunOptions,
    stop: StopSignal,
    *,
    started: Callable[[W, Observer], None] = lambda composed, observer: None,
) -> dict[str, Any]:
    """Make a worker, however often that has to be tried, and run it to its end; returns the summary.

    Args:
        goal: it ends when that is reached; ``None``: when it is stopped.

    Raises:
        ConfigError: something declared or set is wrong; nothing was consumed.
        StreamMLError: the worker had to stop; nothing unsettled was committed.
    """
    _tune_collector()
    observer = Observer()
    begun = time.monotonic()
    composed = start(
        lambda: None if stop.asked.is_set() else compose(observer),
        wait=stop.asked.wait,
        patience_s=options.patience_s,
    )
    if composed is None:
        return summary(None, observer, 0.0, caught_up=None if goal is None else False)
    started(composed, observer)
    stop.bind(composed.worker)
    with watched(composed.worker.live), _reaching(goal, options, stop, composed.worker.waits_for) as caught_up:
        # Who waits for an end must not wait for somebody to resume.
        composed.worker.run(until=lambda engine: caught_up.is_set() or (goal is not None and engine.group_state.paused))
    reached_end = caught_up.is_set() if goal is not None else None
    return summary(composed.engine, observer, time.monotonic() - begun, caught_up=reached_end)


def _tune_collector() -> None:
    """Let the cyclic collector look less often: rows make many objects and no cycles (measured: 10 % of the time)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


@contextmanager
def _goal_of(topology: Topology, settings: Settings, options: RunOptions) -> Iterator[Goal | None]:
    """What is in the topics now, committed by the group."""
    if not options.until_caught_up:
        yield None
        return
    group = settings.group or topology.name
    probe = KafkaSource(topology.source.topics, group, topology.source.start, settings.consumer())
    try:
        yield Goal(
            lambda: {where: high for where, (low, high) in probe.watermarks().items() if high > low}, probe.committed
        )
    finally:
        probe.close()


@contextmanager
def _reaching(
    goal: Goal | None, options: RunOptions, stop: StopSignal, waits_for: Callable[[], str]
) -> Iterator[threading.Event]:
    """An event that is set when the goal is reached.

    Raises:
        StreamMLError: at the end, where progress could not be asked for; it has asked the worker to stop.
    """
    caught_up = threading.Event()
    if goal is None:
        yield caught_up
        return
    positions = goal.positions()
    failed: list[StreamMLError] = []

    def watch(ended: threading.Event) -> None:
        try:
            if _wait_until_reached(goal.committed, positions, options.patience_s, ended, waits_for):
                caught_up.set()
        except StreamMLError as error:
            failed.append(error)
            stop.set()

    with meanwhile(watch, "streamml-catching-up"):
        yield caught_up
    if failed:
        raise failed[0]


def _wait_until_reached(
    ask: Callable[[], Positions],
    goal: Positions,
    patience_s: float | None,
    ended: threading.Event,
    waits_for: Callable[[], str],
) -> bool:
    """True when the goal is reached, false where the run has ended before.

    Args:
        waits_for: what does not answer the worker; empty where all do.

    Raises:
        TransientError: the broker has not answered for ``patience_s``, or the group has not moved for as long for want of
            something else.
    """
    moved, before = time.monotonic(), None
    while not ended.wait(_ASK_S):
        try:
            committed = ask()
            if reached(committed, goal):
                return True
            trouble = waits_for()
            if not trouble or committed != before:
                moved, before = time.monotonic(), committed
                continue
        except SourceUnavailable as error:
            trouble = str(error)
            _LOG.warning("Asking for the group's progress: %s", error)
        silent_s = time.monotonic() - moved
        if patience_s is not None and silent_s > patience_s:
            raise TransientError(
                f"Nothing was done for {silent_s:.0f} s, so this run gives up; what it did is committed, and the next one goes "
                f"on from there. It waited: {trouble}"
            )
    return False


def reached(committed: Positions, goal: Positions) -> bool:
    """Whether every partition of ``goal`` is committed up to it."""
    return all(committed.get(where, -1) >= position for where, position in goal.items())


def summary(
    engine: Engine | None, observer: Observer, seconds: float, *, caught_up: bool | None = None
) -> dict[str, Any]:
    """What a run did, as the JSON that `streamml run --json` prints.

    Args:
        caught_up: whether what was in the topics at the start has been committed; ``None``: nobody asked.
    """
    done = engine.statistics if engine is not None else None
    batches = sum(done.flushes.values()) if done else 0
    rows = sum(cost.rows for name, cost in observer.steps.items() if name == "encode")
    encodes = sum(cost.batches for name, cost in observer.steps.items() if name == "encode")
    latency = observer.latency
    consumed = done.polled if done else 0
    group = engine.group_state if engine is not None else RUNNING
    return {
        "caught_up": caught_up,
        "paused": asdict(group) if group.paused else None,
        "consumed": consumed,
        "predictions": done.predictions if done else 0,
        "dead_letters": done.dead_letters if done else 0,
        "filtered": done.filtered if done else 0,
        "seconds": round(seconds, 3),
        "events_per_s": round(consumed / seconds) if seconds else 0,
        "latency_ms": {f"p{share}": latency.percentile(share / 100) for share in (50, 95, 99)},
        "mean_batch_rows": round(rows / encodes, 1) if encodes else None,
        "batches": batches,
        "retries": done.retries if done else 0,
        "dead_letters_by_error": {f"{step}: {error}": n for (step, error), n in observer.dead_letters.items()},
        "flags": dict(observer.flags),
        "us_per_row": {
            name: round(cost.seconds / cost.rows * 1e6, 3) for name, cost in observer.steps.items() if cost.rows
        },
    }
