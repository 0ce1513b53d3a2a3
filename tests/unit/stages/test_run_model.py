"""A model that raises, answers nonsense, or is broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from streamml.adapters.memory.model import FunctionModel
from streamml.batch.column import Array
from streamml.batch.microbatch import MicroBatch, Origin
from streamml.batch.outcome import Outcomes
from streamml.errors import ModelBusy, ModelFault, ModelRejected
from streamml.ports.model import Signature, Tensor
from streamml.stages.model import RunModel
from streamml.topology.model_steps import Output
from tests.records import failures

Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def rows_of(amounts: list[float]) -> MicroBatch:
    count = len(amounts)
    zeros = np.zeros(count, np.int64)
    origin = Origin(zeros, np.arange(count), np.arange(count), zeros, zeros)
    return MicroBatch(origin, {"amount": np.array(amounts)})


def run_model(function: Function) -> RunModel:
    tensor = Tensor("float64", ())
    model = FunctionModel("m", "1", Signature({"amount": tensor}, {"score": tensor}), function)
    return RunModel(model, {"amount": "amount"}, {"score": Output("score")})


def reasons_of(ended: list[Outcomes]) -> dict[int, str]:
    """The error of each dead letter, by its offset."""
    return {
        int(offset): failure.error
        for piece in ended
        for offset, failure in zip(piece.origin.offset, failures(piece), strict=True)
    }


def apply(function: Function, amounts: list[float]) -> tuple[list[float], dict[int, str]]:
    """Scores of the rows that passed, and the reason of each that did not, by its amount."""
    batch, ended = run_model(function).apply(rows_of(amounts), 0.0)
    return batch.columns["score"].tolist() if len(batch) else [], reasons_of(ended)


def test_e2_only_the_rows_that_it_raises_for_are_dead_letters() -> None:
    """E2.1."""

    def raises_for_13(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if (inputs["amount"] == 13.0).any():
            raise ValueError("13")
        return {"score": inputs["amount"] * 2}

    amounts = [float(n) for n in range(1, 40)]
    scores, reasons = apply(raises_for_13, amounts)
    assert scores == [2 * amount for amount in amounts if amount != 13.0]
    assert reasons == {12: "ModelRejected"}


class Raising:
    """A model of a user's own that raises for every row."""

    name, version = "own", "1"
    signature = Signature({"amount": Tensor("float64", ())}, {"score": Tensor("float64", ())})

    def __init__(self, error: Exception) -> None:
        self._error = error

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        raise self._error

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("card 4929 is odd"), "The model raised ValueError."),
        (ModelRejected("Model own@1 refused these rows."), "Model own@1 refused these rows."),
    ],
)
def test_what_an_exception_says_of_the_values_is_not_told(error: Exception, told: str) -> None:
    """E3.3."""
    zeros = np.zeros(1, np.int64)
    step = RunModel(Raising(error), {"amount": "amount"}, {"score": Output("score")})
    batch = MicroBatch(Origin(zeros, zeros, zeros, zeros, zeros), {"amount": np.array([4929.0])})
    ((piece,),) = [step.apply(batch, 0.0)[1]]
    assert [failure.message for failure in failures(piece)] == [told]


def test_rows_whose_answer_is_not_finite_are_dead_letters() -> None:

    def nan_for_2(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"score": np.where(inputs["amount"] == 2.0, np.nan, inputs["amount"])}

    assert apply(nan_for_2, [1.0, 2.0, 3.0]) == ([1.0, 3.0], {1: "ModelRejected"})


@pytest.mark.parametrize(
    "answer",
    [
        lambda inputs: {"score": inputs["amount"][:-1]},
        lambda inputs: {"score": inputs["amount"].astype(np.float32)},
        lambda inputs: {"other": inputs["amount"]},
        lambda inputs: {"score": [1.0, 2.0]},
    ],
    ids=["too few rows", "another type", "another name", "no array"],
)
def test_an_answer_of_another_shape_is_the_models_fault_and_stops_the_worker(answer: Function) -> None:
    """E1.3."""
    with pytest.raises(ModelFault):
        apply(answer, [1.0, 2.0])


def test_m5_out_of_memory_halves_the_batch() -> None:
    """M5.1."""
    sizes: list[int] = []

    def small_only(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        sizes.append(len(inputs["amount"]))
        if len(inputs["amount"]) > 4:
            raise MemoryError
        return {"score": inputs["amount"]}

    amounts = [float(n) for n in range(16)]
    assert apply(small_only, amounts) == (amounts, {})
    assert max(sizes[1:]) < 16


def test_m5_a_row_that_does_not_fit_alone_is_a_dead_letter_and_shrinks_nothing() -> None:
    """M5.3."""
    sizes: list[int] = []

    def not_2(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        sizes.append(len(inputs["amount"]))
        if (inputs["amount"] == 2.0).any():
            raise MemoryError
        return {"score": inputs["amount"]}

    step = run_model(not_2)
    batch = rows_of([1.0, 2.0, 3.0, 4.0])
    passed, ended = step.apply(batch, 0.0)
    assert (passed.columns["score"].tolist(), reasons_of(ended)) == ([1.0, 3.0, 4.0], {1: "ModelOutOfMemory"})
    sizes.clear()
    step.apply(batch, 0.0)
    assert sizes[0] == 4
    assert step.too_large == 0


def test_e1_a_model_that_is_busy_is_tried_again_as_a_whole() -> None:
    def busy(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        raise ModelBusy("Come back later.")

    with pytest.raises(ModelBusy):
        apply(busy, [1.0, 2.0])
