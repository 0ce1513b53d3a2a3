"""Topologies whose models see only a few shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import streamml as sm
from streamml.adapters.models.onnx import OnnxModel
from streamml.adapters.models.onnx_session import OnnxSettings
from streamml.adapters.models.repository import ModelFiles
from streamml.batch.column import Array, object_array
from streamml.compose.models import _rungs, load_model, load_models, rungs_of
from streamml.compose.stages import engine_config
from streamml.settings.settings import ModelSettings, WorkerSettings
from streamml.testing.driver import TopologyDriver
from tests.conformance.onnx_files import graph, identity, node, store, value


class Text(BaseModel):
    id: int
    text: str


class Score(BaseModel):
    id: int
    score: float


SEEN: list[int] = []


def double() -> Any:
    def score(columns: Mapping[str, Array]) -> Mapping[str, Array]:
        SEEN.append(len(columns["id"]))
        if (columns["id"] == 13).any():
            raise ValueError("13 is poison")
        return {"score": columns["id"] * 2.0}

    return score


def topology(*steps: Any) -> sm.Topology:
    return sm.Topology(
        "texts",
        source=sm.Source("texts", schema=Text, start="earliest"),
        steps=list(steps),
        sink=sm.Sink("scores", schema=Score, key="id"),
        dead_letters=sm.DeadLetterQueue("texts.dlq", max_ratio=1.0),
    )


def doubling(ladder: tuple[int, ...]) -> sm.Python:
    batching = sm.Batching(max_batch_size=32, ladder=ladder)
    return sm.Python(double, inputs={"id": "i8"}, outputs={"score": "f8"}, version="1", batching=batching)


@given(bursts=st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_m6_a_ladder_loses_nothing_adds_nothing_and_keeps_the_order(bursts: list[int]) -> None:
    """M6.1, M6.2: with a poisoned row among them, which is isolated."""
    SEEN.clear()
    run = TopologyDriver(topology(doubling((4, 16))), service_time={"double": lambda rows: 0.010})
    count = 0
    for burst in bursts:
        for _ in range(burst):
            run.send(Text(id=count, text=""))
            count += 1
        run.advance("7ms")
    run.settle()
    assert [one.value["id"] for one in run.predictions()] == [number for number in range(count) if number != 13]
    assert all(one.value["score"] == 2 * one.value["id"] for one in run.predictions())
    assert [one.offset for one in run.dead_letters()] == ([13] if count > 13 else [])
    assert set(SEEN) <= {1, 4, 16, 32}


def test_m6_every_rung_runs_before_the_worker_joins(tmp_path: Path) -> None:
    """M6.1."""
    SEEN.clear()
    models = load_models(topology(doubling((4, 16))), tmp_path, ModelSettings())
    assert set(SEEN) == {1, 4, 16, 32}
    assert rungs_of(models["double"]) == (1, 4, 16, 32)


def tokens(columns: Mapping[str, Array]) -> dict[str, Array]:
    rows = [np.frombuffer(text.encode(), np.uint8).astype(np.float32) for text in columns["text"]]
    return {"x": object_array(rows, len(rows))}


@pytest.mark.parametrize("lengths", [(), (4, 16)])
def test_m6_texts_of_any_length_are_scored_as_alone(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    """M6.2, M6.3: the model adds up the bytes of a text."""
    total = graph(
        [node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        [value("x", "float32", ["rows", "length"])],
        [value("y", "float32", ["rows"])],
        {"axes": np.array([1])},
    )
    store(tmp_path, total, "sums")
    batching = sm.Batching(max_batch_size=8, lengths=lengths, ladder=(4,))
    summing = sm.Onnx("sums", outputs={"score": "y"}, batching=batching)
    read = sm.Transform(tokens, inputs=("text",), outputs={"x": "object"})
    run = TopologyDriver(topology(read, summing), repository=tmp_path)
    texts = ["a", "", "bcdefghijk", "xyz", "a" * 17, "ü"] * 3
    for number, text in enumerate(texts):
        run.send(Text(id=number, text=text))
    run.settle()
    scored = {one.value["id"]: one.value["score"] for one in run.predictions()}
    fits = [number for number, text in enumerate(texts) if not lengths or len(text.encode()) <= 16]
    assert list(scored) == fits
    assert scored == {number: float(sum(texts[number].encode())) for number in fits}
    assert {one.error for one in run.dead_letters()} == ({"ModelRejected"} if lengths else set())


@pytest.mark.parametrize(
    ("kind", "providers", "changes", "padded"),
    [
        (sm.Onnx, ("cpu",), {}, False),
        (sm.Onnx, ("tensorrt", "cpu"), {}, True),
        (sm.Onnx, ("cuda", "cpu"), {}, True),
        (sm.Onnx, ("cuda", "cpu"), {"cuda_graphs": False}, True),
        (sm.Torch, ("cpu",), {"compile": True}, False),
        (sm.Torch, ("cuda",), {}, True),
        (sm.Torch, ("cuda",), {"cuda_graphs": False}, False),
        (sm.Torch, ("cuda",), {"cuda_graphs": False, "compile": True}, True),
    ],
)
def test_powers_of_two_are_the_default_only_where_a_device_is_made_for_shapes(
    kind: Any, providers: tuple[str, ...], changes: dict[str, Any], padded: bool
) -> None:
    graphs, compiled = changes.get("cuda_graphs", True), {"compile": True} if "compile" in changes else {}
    settings = ModelSettings.model_validate({"providers": providers, "cuda_graphs": graphs})
    step = kind("m", outputs={"y": "y"}, batching=sm.Batching(max_batch_size=6), **compiled)
    assert _rungs(step, settings) == ((1, 2, 4, 6) if padded else ())


@pytest.mark.parametrize(("graphs", "captured"), [(True, (1, 2, 4, 6)), (False, ())])
def test_an_onnx_model_is_captured_at_what_its_batches_are_padded_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graphs: bool, captured: tuple[int, ...]
) -> None:
    asked: list[OnnxSettings] = []
    load = OnnxModel.load

    def loaded(files: ModelFiles, settings: OnnxSettings) -> OnnxModel:
        asked.append(settings)
        return load(files)

    monkeypatch.setattr(OnnxModel, "load", loaded)
    store(tmp_path, identity(), "m")
    step = sm.Onnx("m", outputs={"y": "y"}, batching=sm.Batching(max_batch_size=6, lengths=(8, 16)))
    settings = ModelSettings(providers=("cuda", "cpu"), cuda_graphs=graphs)
    assert rungs_of(load_model(step, tmp_path, settings)) == (1, 2, 4, 6)
    assert [(one.captured, one.lengths, one.graphs) for one in asked] == [(captured, (8, 16), graphs)]


def test_m6_the_batcher_knows_the_rungs_of_its_model(tmp_path: Path) -> None:
    """M6.4."""
    job = topology(doubling((4, 16)))
    config = engine_config(job, load_models(job, tmp_path, ModelSettings()), WorkerSettings(), "w")
    assert [one.rungs for one in config.stages] == [(1, 4, 16, 32)]


def test_on_a_cpu_nothing_is_padded_by_default(tmp_path: Path) -> None:
    step = sm.Python(double, inputs={"id": "i8"}, outputs={"score": "f8"}, version="1")
    assert rungs_of(load_model(step, tmp_path, ModelSettings())) == ()
