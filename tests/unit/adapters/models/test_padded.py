"""A model that is padded to a ladder of shapes answers what it answers without one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamml.adapters.memory.model import FunctionModel
from streamml.adapters.models.padded import PaddedModel
from streamml.batch.column import Array, object_array
from streamml.errors import ModelFault, ModelRejected
from streamml.ports.model import PartialAnswer, Signature, Tensor

SIZES: list[tuple[int, ...]] = []
SUM = Signature({"x": Tensor("float32", (None,)), "k": Tensor("int64", ())}, {"y": Tensor("float32", ())})


def summed(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    SIZES.append(inputs["x"].shape)
    return {"y": (inputs["x"].sum(axis=1) * inputs["k"]).astype(np.float32)}


def padded(rungs: tuple[int, ...] = (), lengths: tuple[int, ...] = ()) -> PaddedModel:
    SIZES.clear()
    return PaddedModel(FunctionModel("m", "1", SUM, summed), rungs, lengths)


def ragged(lengths: list[int]) -> dict[str, Array]:
    values = [np.full(length, number + 1, np.float32) for number, length in enumerate(lengths)]
    return {"x": object_array(values, len(values)), "k": np.arange(len(values), dtype=np.int64)}


def expected(lengths: list[int]) -> list[float]:
    return [float(length * (number + 1) * number) for number, length in enumerate(lengths)]


@given(rows=st.integers(1, 70), rungs=st.sets(st.integers(2, 40), max_size=4))
def test_m6_what_is_padded_answers_as_what_is_not_and_in_its_order(rows: int, rungs: set[int]) -> None:
    """M6.1, M6.2."""
    ladder = (1, *sorted(rungs))
    model = padded(ladder)
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    answer = model.run({"x": x, "k": np.arange(rows, dtype=np.int64)})
    assert answer["y"].tolist() == (x.sum(axis=1) * np.arange(rows)).tolist()
    assert {shape[0] for shape in SIZES} <= set(ladder)


@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=50))
def test_m6_rows_of_similar_length_go_together_and_come_back_in_their_order(lengths: list[int]) -> None:
    """M6.2, M6.3."""
    model = padded((1, 4, 16), (4, 8, 32))
    assert model.run(ragged(lengths))["y"].tolist() == expected(lengths)
    assert {shape[0] for shape in SIZES} <= {1, 4, 16}
    assert {shape[1] for shape in SIZES} <= {4, 8, 32}
    assert len(SIZES) <= 3 * (len(lengths) // 16 + 1)


def test_without_lengths_rows_are_as_long_as_the_longest_of_their_batch() -> None:
    model = padded()
    assert model.run(ragged([2, 5, 0]))["y"].tolist() == expected([2, 5, 0])
    assert SIZES == [(3, 5)]


def test_m6_a_row_that_is_too_long_ends_alone() -> None:
    """M6.3."""
    answer = padded((1, 8), (4,)).run(ragged([3, 9, 4, 5]))
    assert isinstance(answer, PartialAnswer)
    assert answer["y"][[0, 2]].tolist() == [0.0, 24.0]
    assert answer.failed == dict.fromkeys((1, 3), "The row has more than the 4 elements that model m@1 takes.")
    with pytest.raises(ModelRejected):
        padded((), (4,)).run(ragged([9]))


def test_rows_that_only_pad_fail_for_nobody() -> None:
    """A model that gives up on its last row gives up on the copies, too; only the row itself is told."""

    class GivesUpOnZero(FunctionModel):
        def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            failed = np.flatnonzero(inputs["k"] == 0).tolist()
            return PartialAnswer(dict(summed(inputs)), dict.fromkeys(failed, "zero"))

    model = PaddedModel(GivesUpOnZero("m", "1", SUM, summed), (1, 4))
    whole = {"x": np.ones((6, 2), np.float32), "k": np.array([1, 2, 0, 3, 4, 0])}
    answer = model.run(whole)
    assert isinstance(answer, PartialAnswer)
    assert answer.failed == {2: "zero", 5: "zero"}
    assert answer["y"].tolist() == [2.0, 4.0, 0.0, 6.0, 8.0, 0.0]


def test_answers_that_depend_on_the_length_cannot_be_put_together() -> None:
    signature = Signature({"x": Tensor("float32", (None,))}, {"x": Tensor("float32", (None,))})
    model = PaddedModel(FunctionModel("m", "1", signature, lambda inputs: inputs), (), (2, 4))
    with pytest.raises(ModelFault, match="one length"):
        model.run({"x": ragged([1, 3])["x"]})


def test_text_numbers_and_dense_arrays_pass_as_they_are() -> None:
    signature = Signature({"t": Tensor("text", ()), "x": Tensor("float32", (None,))}, {"n": Tensor("int64", ())})
    seen: list[Mapping[str, Array]] = []

    def lengths(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        seen.append(inputs)
        return {"n": np.array([len(text) for text in inputs["t"]], np.int64)}

    model = PaddedModel(FunctionModel("m", "1", signature, lengths), (1, 4))
    texts = object_array(["a", "bcd", "é"], 3)
    assert model.run({"t": texts, "x": np.ones((3, 2), np.float32)})["n"].tolist() == [1, 3, 1]
    assert seen[0]["t"].tolist() == ["a", "bcd", "é", "é"]


def test_arrays_of_another_type_are_refused() -> None:
    column = object_array([np.array([1.5])], 1)
    signature = Signature({"x": Tensor("int64", (None,))}, {"y": Tensor("int64", ())})
    model = PaddedModel(FunctionModel("m", "1", signature, lambda inputs: {"y": inputs["x"].sum(axis=1)}), ())
    with pytest.raises(ModelRejected, match="float64"):
        model.run({"x": column})
