"""The real engine and worker between a source and a sink in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from loadtests.gpu.jobs import Job, run_of, runs_of
from streamml.adapters.synthetic.sink import DiscardingSink
from streamml.adapters.synthetic.source import PreparedSource
from streamml.compose.assemble import Assembled, Ports, assemble
from streamml.compose.stages import engine_config
from streamml.engine.assignment import SlotNames
from streamml.engine.engine import Engine
from streamml.engine.events import Settled, StageResult
from streamml.ports.model import Model
from streamml.ports.sink import OutboundRecords, Sink
from streamml.ports.source import RecordRun, Source
from streamml.settings.settings import Settings
from streamml.telemetry.observer import Observer

_LONGEST_S: Final = 300.0


@dataclass(slots=True)
class Watch(Observer):
    """When work began and ended, and how long the model had it.

    Args:
        step: name of the model.
    """

    step: str = ""
    begun: float = 0.0
    ended: float = 0.0
    model_s: float = 0.0
    batches: list[int] = field(default_factory=list)

    def staged(self, result: StageResult) -> None:
        """See `Observer.staged`."""
        self.begun = self.begun or time.perf_counter() - sum(timing.seconds for timing in result.timings)
        own = [timing for timing in result.timings if timing.step == self.step]
        self.model_s += sum(timing.seconds for timing in own)
        self.batches += [timing.rows for timing in own]
        Observer.staged(self, result)

    def settled(self, settled: Settled, now: float) -> None:
        """See `Observer.settled`."""
        self.ended = time.perf_counter()
        Observer.settled(self, settled, now)


@dataclass(frozen=True, slots=True)
class Drained:
    """A backlog that was drained.

    Args:
        in_model: share of the time in which a batch was in the model, copies included; where each batch waits for the one
            before, no device can be busier.
    """

    rows_per_s: float
    in_model: float
    mean_batch: float


class PacedSource(PreparedSource):
    """Gives out what is due: ``rate`` events per second from the first poll on."""

    def __init__(self, events: int, rate: float) -> None:
        super().__init__([run_of(0, 1, 0)])
        self._events, self._rate, self._next = events, rate, 1
        self.begun = 0.0

    def poll(self, max_rows: int, timeout_s: float) -> list[RecordRun]:
        """See `Source.poll`."""
        self.begun = self.begun or time.perf_counter()
        first = super().poll(max_rows, 0.0)
        due = min(self._events, int((time.perf_counter() - self.begun) * self._rate) + 1, self._next + max_rows)
        if first or due <= self._next:
            time.sleep(min(timeout_s, 1 / self._rate))
            return first
        start, self._next = self._next, due
        return [run_of(start, due, 0)]


class TimingSink(DiscardingSink):
    """Notes when each event's prediction came, by its key."""

    def __init__(self, events: int) -> None:
        super().__init__()
        self.at = np.full(events, np.nan)

    def send(self, token: int, blocks: Sequence[OutboundRecords]) -> None:
        """See `Sink.send`."""
        now = time.perf_counter()
        for block in blocks:
            self.at[[int(key or b"0") for key in block.keys]] = now
        super().send(token, blocks)


def drained(job: Job, model: Model, events: int) -> Drained:
    """Let a worker do a backlog."""
    runs = runs_of(events)
    watch = Watch(step=job.name)
    _run(_drain(job, model, PreparedSource(runs), DiscardingSink(), watch), events)
    took = watch.ended - watch.begun
    return Drained(events / took, watch.model_s / took, float(np.mean(watch.batches)))


def latencies(job: Job, model: Model, rate: float, seconds: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Seconds from the time that an event was due to its prediction; the first fifth, in which a worker warms up, left out."""
    events = max(20, int(rate * seconds))
    source, sink = PacedSource(events, rate), TimingSink(events)
    _run(_drain(job, model, source, sink, Watch(step=job.name)), events)
    late = sink.at - (source.begun + np.arange(events) / rate)
    return np.asarray(late[events // 5 :])


def figures(raw: float, run: Drained, late: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, float]:
    """What came out, rounded.

    Args:
        raw: rows per second of the model called by itself.
        late: as `latencies` gives them.
    """
    return {
        "raw_rows_per_s": round(raw),
        "rows_per_s": round(run.rows_per_s),
        "of_raw": round(run.rows_per_s / raw, 3),
        "in_model": round(run.in_model, 3),
        "ms_p50": round(float(np.percentile(late, 50)) * 1e3, 3),
        "ms_p99": round(float(np.percentile(late, 99)) * 1e3, 3),
    }


def _drain(job: Job, model: Model, source: Source, sink: Sink, watch: Watch) -> Assembled:
    topology, models, names = job.topology(), {job.name: model}, SlotNames()
    config = engine_config(topology, models, Settings().worker, "gpu")
    return assemble(topology, models, Settings(), Ports(source, sink, None), names, config, watch)


def _run(drain: Assembled, events: int) -> None:
    done, deadline = drain.engine.statistics, time.monotonic() + _LONGEST_S

    def through(engine: Engine) -> bool:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{done.predictions:,} of {events:,} events in {_LONGEST_S:.0f} s")
        return done.predictions >= events and engine.idle

    drain.worker.run(until=through)
    if done.dead_letters:
        raise RuntimeError(f"{done.dead_letters:,} of {events:,} events became dead letters")


BASELINE_MODELS: Final = Path(__file__).parents[1] / "baseline" / "models"
