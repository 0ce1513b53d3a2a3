"""`streamml profile` names the step that a delay was planted in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import BaseModel, field_validator

import streamml as sm
from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.feature_store import MemoryFeatureStore
from streamml.adapters.memory.sink import MemorySink
from streamml.adapters.memory.source import MemorySource
from streamml.batch.column import Columns
from streamml.compose.assemble import Assembled
from streamml.compose.drain import DrainFactory, Ends, written_to
from streamml.compose.locate import Located
from streamml.compose.parts import Parts
from streamml.errors import ConfigError
from streamml.ops.constraint import BASELINE, judged
from streamml.ops.profile import ProfileOptions, measure, profile, read_runs
from streamml.ports.feature_store import FeatureReply, FeatureRequest, FeatureSchema
from streamml.ports.sink import OutboundRecords
from streamml.ports.source import RecordRun
from streamml.settings.settings import Settings, WorkerSettings
from streamml.telemetry.observer import Observer
from streamml.testing.models import function_model

ROWS = 100
DELAY_S = 0.0005
"""Per row; without it a row takes some tens of microseconds."""

Place = Literal["read", "decode", "lookup(accounts)", "inputs", "fraud", "encode", "produce", "nowhere"]


def wait(rows: int) -> None:
    time.sleep(rows * DELAY_S)


class SlowSource(MemorySource):
    def poll(self, max_rows: int, timeout_s: float) -> list[RecordRun]:
        runs = super().poll(max_rows, timeout_s)
        wait(sum(map(len, runs)))
        return runs


class SlowSink(MemorySink):
    def send(self, token: int, blocks: Sequence[OutboundRecords]) -> None:
        wait(sum(map(len, blocks)))
        super().send(token, blocks)


class SlowStore(MemoryFeatureStore):
    def lookup(self, requests: Sequence[FeatureRequest]) -> list[FeatureReply]:
        # Entities repeat, so there are fewer of them than rows.
        wait(3 * sum(len(one.entities) for one in requests))
        return super().lookup(requests)


def schema(slow: bool) -> type[BaseModel]:
    """With a validator of the user's that takes its time."""

    class Quick(BaseModel):
        id: str
        account: str
        amount: float

    class Slow(Quick):
        @field_validator("amount")
        @classmethod
        def checked(cls, amount: float) -> float:
            wait(1)
            return amount

    return Slow if slow else Quick


def verdict(slow: bool) -> type[BaseModel]:
    class Quick(BaseModel):
        id: str
        score: float

    class Slow(Quick):
        @field_validator("score")
        @classmethod
        def checked(cls, score: float) -> float:
            wait(1)
            return score

    return Slow if slow else Quick


accounts = sm.FeatureSet("accounts", key="account", columns={"mean": sm.f4(default=10.0)}, max_default_ratio=1.0)


def planted(place: Place) -> tuple[sm.Topology, Callable[[Columns], Columns]]:
    """A topology and the function of its model, with a delay at this place."""

    def inputs(columns: Columns) -> dict[str, Any]:
        wait(len(columns["amount"]) if place == "inputs" else 0)
        return {"x": np.stack([columns["amount"], columns["accounts.mean"]], axis=1).astype(np.float32)}

    def score(tensors: Columns) -> Columns:
        wait(len(tensors["x"]) if place == "fraud" else 0)
        return {"score": tensors["x"][:, 0]}

    slow_decode = place == "decode"
    topology = sm.Topology(
        "payments",
        source=sm.Source(
            "payments",
            schema=schema(slow_decode),
            start="earliest",
            parsing="pydantic" if slow_decode else "strict",
        ),
        steps=[
            sm.FeatureLookup(accounts),
            sm.Transform(inputs, inputs=("amount", "accounts.mean"), outputs={"x": "f4[2]"}),
            sm.Onnx("fraud", outputs={"score": "score"}, batching=sm.Batching(max_batch_size=100)),
        ],
        sink=sm.Sink("verdicts", schema=verdict(place == "encode"), key="id"),
        dead_letters=sm.DeadLetterQueue("payments.dlq"),
    )
    return topology, score


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker()
    for name in ("payments", "scratch"):
        made.create_topic(name, partitions=2)
    for number in range(ROWS):
        event = {"id": f"p{number}", "account": f"a{number % 40}", "amount": number * 0.5}
        made.append("payments", json.dumps(event).encode(), key=b"k", partition=number % 2)
    return made


def factory_of(
    broker: MemoryBroker,
    topology: sm.Topology,
    model: Any,
    place: Place = "nowhere",
    settings: Settings | None = None,
) -> DrainFactory:
    store = SlowStore() if place == "lookup(accounts)" else MemoryFeatureStore()
    store.load(
        FeatureSchema("accounts", (("mean", sm.f4(default=10.0)),)),
        {f"a{number}": {"mean": 1.0} for number in range(40)},
        0,
    )
    groups = iter(range(1000))

    def source() -> MemorySource:
        kind = SlowSource if place == "read" else MemorySource
        return kind(broker, ["payments"], f"group-{next(groups)}", "earliest")

    def sink() -> MemorySink:
        return SlowSink(broker) if place == "produce" else MemorySink(broker)

    scratched = written_to(topology, "scratch")
    ends = Ends(source, sink, store)
    return DrainFactory(scratched, Parts(model), settings or Settings(), ends, read_runs(source(), ROWS))


PLACES: list[Place] = ["read", "decode", "lookup(accounts)", "inputs", "fraud", "encode", "produce"]


@pytest.mark.parametrize("place", PLACES)
def test_a_planted_constraint_is_named(broker: MemoryBroker, place: Place) -> None:
    topology, score = planted(place)
    models = {"fraud": function_model(topology, 2, score, {})}
    rates = measure(factory_of(broker, topology, models, place), ROWS, ProfileOptions(ROWS, 3), lambda text: None)
    found = judged(rates, topology)
    assert found["constraint"] == place, found
    gains = {step["free"]: step["speed_up"] for step in found["steps"]}
    assert gains.keys() == {*PLACES, "features from memory"}
    assert all(gain > 0 for gain in gains.values())
    assert len(found["advice"]) > len(place)


def test_where_redis_is_slow_the_advice_is_about_redis_and_where_the_join_is_it_is_not() -> None:
    topology, _ = planted("nowhere")
    rates = {BASELINE: [100.0], "lookup(accounts)": [300.0], "decode": [110.0]}
    asked = judged({**rates, "features from memory": [250.0]}, topology)
    joined = judged({**rates, "features from memory": [120.0]}, topology)
    assert asked["constraint"] == joined["constraint"] == "lookup(accounts)"
    assert "bring Redis nearer" in asked["advice"]
    assert "joining" in joined["advice"]


def test_no_step_is_named_where_none_holds_the_others_up() -> None:
    topology, _ = planted("nowhere")
    found = judged({BASELINE: [100.0, 90.0, 80.0], "read": [105.0, 91.0, 85.0], "decode": [90.0, 94.0, 80.0]}, topology)
    assert found["constraint"] is None
    assert "--workers" in found["advice"]
    assert [step["share"] for step in found["steps"]] == [pytest.approx(0.048, abs=0.002), 0.0]


def test_a_step_that_drops_rows_is_not_made_free(broker: MemoryBroker) -> None:
    topology, score = planted("nowhere")
    even = sm.Filter(lambda columns: columns["amount"] % 1 == 0, inputs=("amount",), name="even")
    filtered = sm.Topology(
        "payments",
        source=topology.source,
        steps=[even, *topology.steps],
        sink=topology.sink,
        dead_letters=topology.dead_letters,
    )
    models = {"fraud": function_model(filtered, 3, score, {})}
    rates = measure(factory_of(broker, filtered, models), ROWS, ProfileOptions(ROWS, 1), lambda text: None)
    found = {step["free"]: step["speed_up"] for step in judged(rates, filtered)["steps"]}
    assert found["even"] is None
    assert found["decode"] is not None


def test_what_is_free_has_the_columns_of_what_is_real(broker: MemoryBroker) -> None:
    topology, score = planted("nowhere")
    models = {"fraud": function_model(topology, 2, score, {})}
    factory = factory_of(broker, topology, models)
    factory.learning(Observer()).worker.run(until=lambda engine: engine.statistics.polled >= ROWS and engine.idle)
    for free in factory.steps:
        before = len(broker.records("scratch"))
        drain = factory.drain(free, Observer())
        drain.worker.run(until=lambda engine: engine.statistics.polled >= ROWS and engine.idle)
        assert drain.engine.statistics.predictions == ROWS, free
        written = len(broker.records("scratch")) - before
        assert written == (0 if free == "produce" else ROWS), free


def drained(factory: DrainFactory, free: str | None = None) -> Assembled:
    drain = factory.drain(free, Observer())
    drain.worker.run(until=lambda engine: engine.statistics.polled >= ROWS and engine.idle)
    return drain


def learnt(factory: DrainFactory) -> DrainFactory:
    factory.learning(Observer()).worker.run(until=lambda engine: engine.statistics.polled >= ROWS and engine.idle)
    return factory


def test_a_topology_that_runs_exactly_once_is_profiled_at_least_once(broker: MemoryBroker) -> None:
    topology, score = planted("nowhere")
    settings = Settings(worker=WorkerSettings(processing_guarantee="exactly_once"))
    models = {"fraud": function_model(topology, 2, score, {})}
    factory = learnt(factory_of(broker, topology, models, settings=settings))
    assert drained(factory).engine.statistics.predictions == ROWS


def test_records_that_are_too_old_by_now_are_scored_all_the_same(broker: MemoryBroker) -> None:
    """A profile reads what has been in the topic for long, and would find out what dead letters cost instead."""
    topology, score = planted("nowhere")
    batching = sm.Batching(max_batch_size=100, latency_budget="1ms", on_late="dead_letter")
    hurried = replace(
        topology, steps=(*topology.steps[:-1], sm.Onnx("fraud", outputs={"score": "score"}, batching=batching))
    )
    models = {"fraud": function_model(hurried, 2, score, {})}
    factory = learnt(factory_of(broker, hurried, models))
    assert drained(factory).engine.statistics.predictions == ROWS


def test_steps_of_one_name_are_made_free_one_by_one(broker: MemoryBroker) -> None:
    topology, score = planted("nowhere")
    twice = [
        sm.Transform(lambda columns: {"a": columns["amount"] + 1}, inputs=("amount",), outputs={"a": "f8"}),
        sm.Transform(lambda columns: {"b": columns["a"] + 1}, inputs=("a",), outputs={"b": "f8"}),
    ]
    doubled = replace(topology, steps=(*twice, *topology.steps))
    models = {"fraud": function_model(doubled, 4, score, {})}
    factory = learnt(factory_of(broker, doubled, models))
    assert {"<lambda>", "<lambda> (2)"} <= set(factory.steps)
    for free in ("<lambda>", "<lambda> (2)"):
        assert drained(factory, free).engine.statistics.predictions == ROWS, free
    found = judged({BASELINE: [100.0], "<lambda> (2)": [300.0]}, doubled)
    assert "The function of the step <lambda> (2) is the constraint" in found["advice"]


@pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed")
def test_a_trace_without_pytorch_is_refused_before_anything_is_drained(tmp_path: Path) -> None:
    options = ProfileOptions(torch_trace=tmp_path / "trace.json")
    located = Located(planted("nowhere")[0], tmp_path)
    with pytest.raises(ConfigError, match=r"pip install streamml\[torch\]"):
        profile(located, Settings(), options, lambda text: None)
