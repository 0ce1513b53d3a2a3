"""E1, E2, M5: what can go wrong is told apart by what happens next, on a real model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from streamml.adapters.memory.model import FunctionModel
from streamml.adapters.models.onnx import OnnxModel
from streamml.batch.column import Array
from streamml.errors import ModelFault
from streamml.ports.model import Signature, Tensor
from streamml.testing import TopologyDriver
from tests.conformance.onnx_files import graph, hungry, node, store, value
from tests.testing.shop import accounts, payment, payments, score

MOST_ROWS = 8


@pytest.fixture
def scored(tmp_path: Path) -> TopologyDriver:
    """By a model on ONNX Runtime that has memory for `MOST_ROWS` rows."""
    made = TopologyDriver(payments(), models={"fraud": OnnxModel.load(store(tmp_path, hungry(MOST_ROWS), "fraud"))})
    made.features(accounts, {"ann": {"mean": 5.0}})
    return made


def test_e2_m5_rows_that_are_refused_and_rows_that_never_fit_are_dead_letters_of_their_own(
    scored: TopologyDriver,
) -> None:
    amounts = [float(n) for n in range(20, 120)]
    amounts[30], amounts[31], amounts[70] = 13.0, 2e6, 13.0
    ids = [scored.send(payment(n, amount)) for n, amount in enumerate(amounts)]
    scored.settle()
    letters = {letter.id: letter.error for letter in scored.dead_letters()}
    assert letters == {ids[30]: "ModelRejected", ids[31]: "ModelOutOfMemory", ids[70]: "ModelRejected"}
    scores = [prediction.value["score"] for prediction in scored.predictions()]
    assert scores == [amount for n, amount in enumerate(amounts) if n not in (30, 31, 70)]
    assert scored.statistics.retries == 0


def test_e1_a_fault_of_the_model_stops_the_worker_and_fails_no_row(tmp_path: Path) -> None:
    one_answer = graph(
        [node("ReduceSum", ["x"], ["score"], keepdims=1)],
        [value("x", "float32", ["rows", 2])],
        [value("score", "float32", ["rows", "one"])],
    )
    made = TopologyDriver(payments(), models={"fraud": OnnxModel.load(store(tmp_path, one_answer, "fraud"))})
    made.features(accounts, {"ann": {"mean": 5.0}})
    for number in range(5):
        made.send(payment(number))
    with pytest.raises(ModelFault, match="has 1 rows instead of 5"):
        made.settle()
    assert (made.predictions(), made.dead_letters()) == ([], [])
    assert set(made.commits().values()) == {0}


def test_e1_a_model_that_raises_for_every_row_is_dead_letters_up_to_the_limit() -> None:
    def broken(tensors: Mapping[str, Array]) -> Mapping[str, Array]:
        raise ValueError("always")

    made = TopologyDriver(payments(), models={"fraud": broken})
    made.features(accounts, {"ann": {"mean": 5.0}})
    for number in range(100):
        made.send(payment(number))
    made.settle()
    assert Counter(letter.error for letter in made.dead_letters()) == {"ModelRejected": 100}


def test_m5_a_batch_that_does_not_fit_is_halved_once_and_the_next_ones_come_in_parts() -> None:
    calls: list[int] = []

    def small(tensors: Mapping[str, Array]) -> Mapping[str, Array]:
        calls.append(len(tensors["x"]))
        if calls[-1] > MOST_ROWS:
            raise MemoryError
        return score(tensors)

    tensors = Signature({"x": Tensor("float32", (2,))}, {"score": Tensor("float32", ())})
    made = TopologyDriver(payments(), models={"fraud": FunctionModel("fraud", "1", tensors, small)})
    made.features(accounts, {"ann": {"mean": 5.0}})
    for number in range(64):
        made.send(payment(number))
    made.settle()
    assert max(calls) == 64
    calls.clear()
    for number in range(64):
        made.send(payment(number))
    made.settle()
    assert calls == [MOST_ROWS] * 8
    assert np.mean([prediction.value["score"] for prediction in made.predictions()]) == 4.0
