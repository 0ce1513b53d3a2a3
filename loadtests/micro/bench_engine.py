"""How many events a second the engine handles on one core when source and sink hand over columns.

``python -m loadtests.micro.bench_engine``. The job of `loadtests.baseline` with its features, transform and model, but the
events come as decoded columns and the predictions leave as encoded ones, as a native source and sink would do it; features are
looked up in memory. What is left is the engine, the join and the model.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from loadtests.baseline.load import ACCOUNTS, events, feature_columns
from loadtests.baseline.topology import account, topology
from streamml.adapters.memory.feature_store import MemoryFeatureStore
from streamml.adapters.synthetic.feature_store import RememberingStore
from streamml.batch.column import object_array
from streamml.compose.models import close_all, load_models
from streamml.compose.stages import build_stages, engine_config
from streamml.engine.assignment import SlotNames
from streamml.engine.engine import Engine
from streamml.engine.events import Action, Assigned, Event, Polled, RunStage, Send, StageDone
from streamml.ports.feature_store import FeatureSchema
from streamml.ports.sink import Delivered
from streamml.ports.source import RecordRun, TopicPartition
from streamml.settings.settings import Settings
from streamml.stages.free import Free, Learning
from streamml.stages.stage import Operator, Stage

PARTITIONS = 4
ROWS = 4096
POLLS = 200
ROUNDS = 5


class Job:
    """An engine with its stages, driven on this thread."""

    def __init__(self, learnt: list[Learning] | None = None) -> None:
        models = load_models(topology, Path(__file__).parents[1] / "baseline" / "models", Settings().model)
        self._close = partial(close_all, models)
        names = SlotNames()
        self.learnt: list[Learning] = []
        self.engine = Engine(engine_config(topology, models, Settings().worker, "bench"), names)
        answers = {one.name: one.answer for one in learnt or ()}

        def around(operator: Operator) -> Operator:
            answer = answers.get(operator.name)
            if answer is not None and operator.name in ("decode", "encode"):
                return Free(operator.name, answer)
            self.learnt.append(Learning(operator))
            return operator if learnt else self.learnt[-1]

        self.stages: list[Stage] = build_stages(topology, models, features(), names.prefixes, around=around)
        self.seconds: dict[str, float] = {}
        self.handle(Assigned({TopicPartition("baseline.events", number): 0 for number in range(PARTITIONS)}))

    def handle(self, event: Event) -> None:
        todo: list[Action] = self.engine.handle(event, time.time())
        for action in todo:
            if isinstance(action, RunStage):
                result = self.stages[action.stage].run(action.batch, time.time())
                for timing in result.timings:
                    self.seconds[timing.step] = self.seconds.get(timing.step, 0.0) + timing.seconds
                self.handle(StageDone(action.job, result))
            elif isinstance(action, Send):
                self.handle(Delivered(action.token))

    def close(self) -> None:
        self._close()


def features() -> RememberingStore:
    """The features of all accounts, in memory."""
    columns = feature_columns()
    schema = FeatureSchema("account", tuple(account.columns.items()))
    rows: dict[tuple[Any, ...] | str | int, dict[str, Any]] = {
        f"{number}": {name: column[number] for name, column in columns.items()} for number in range(ACCOUNTS)
    }
    store = MemoryFeatureStore()
    store.load(schema, rows, 0)
    return RememberingStore(store)


def polls(count: int) -> Iterator[Polled]:
    """What a source hands over, ``count`` times ``ROWS`` records; the same values every time."""
    values = [value for _, value in events(ROWS)]
    share = ROWS // PARTITIONS
    parts = [object_array(values[number * share : (number + 1) * share], share) for number in range(PARTITIONS)]
    for poll in range(count):
        offsets = np.arange(poll * share, (poll + 1) * share)
        stamps = np.full(share, 1_700_000_000_000, np.int64)
        yield Polled(
            [
                RecordRun(TopicPartition("baseline.events", number), offsets, stamps, part, None, None, 200 * share, [])
                for number, part in enumerate(parts)
            ]
        )


def run(job: Job, count: int) -> float:
    """Events per second."""
    todo = list(polls(count))
    began = time.perf_counter()
    for poll in todo:
        job.handle(poll)
    return count * ROWS / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    first = Job()
    run(first, 3)
    found: list[float] = []
    steps: dict[str, Any] = {}
    for _ in range(ROUNDS):
        job = Job(first.learnt)
        run(job, 1)
        job.seconds.clear()
        found.append(run(job, POLLS))
        assert job.engine.statistics.predictions == (POLLS + 1) * ROWS
        steps = {name: round(seconds / POLLS / ROWS * 1e6, 3) for name, seconds in job.seconds.items()}
        job.close()
    whole = 1e6 / median(found)
    rest = {"engine": round(whole - sum(steps.values()), 3)}
    json.dump(
        {"events_per_s": round(median(found)), "rounds": list(map(round, found)), "us": {**steps, **rest}}, sys.stdout
    )


if __name__ == "__main__":
    main()
