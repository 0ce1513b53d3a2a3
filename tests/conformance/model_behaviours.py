"""What every model adapter does, whatever is behind it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from streamml.batch.column import Array
from streamml.errors import ModelFault, ModelOutOfMemory, ModelRejected
from streamml.ports.model import Model, Signature, Tensor
from tests.conformance.python_factories import WEIGHTS

RNG = np.random.default_rng(7)
SECRET = 987_654_321

SIGNATURES = {
    "scores": Signature({"x": Tensor("float32", (3,))}, {"y": Tensor("float32", ())}),
    "several": Signature(
        {"a": Tensor("float32", ()), "b": Tensor("int64", ()), "c": Tensor("bool", ())},
        {"total": Tensor("float64", ()), "b_again": Tensor("int64", ())},
    ),
    "text": Signature({"t": Tensor("text", ())}, {"t_again": Tensor("text", ()), "code": Tensor("int64", ())}),
    "matrix": Signature({"x": Tensor("float32", (2, 3))}, {"y": Tensor("float32", (3, 2))}),
    "ragged": Signature({"x": Tensor("float32", (None,))}, {"y": Tensor("float32", ())}),
    "half": Signature({"x": Tensor("float16", (2,))}, {"y": Tensor("float16", (2,))}),
    "double": Signature({"x": Tensor("float64", (2,))}, {"y": Tensor("float64", (2,))}),
    "bool": Signature({"x": Tensor("bool", (2,))}, {"y": Tensor("bool", (2,))}),
    "int32": Signature({"x": Tensor("int32", (2,))}, {"y": Tensor("int32", (2,))}),
    "first_row": Signature({"x": Tensor("float32", (3,))}, {"y": Tensor("float32", (3,))}),
    "other_shape": Signature({"x": Tensor("float32", (None,))}, {"y": Tensor("float32", (3,))}),
    "picky": Signature({"i": Tensor("int64", ())}, {"y": Tensor("float32", ())}),
    "greedy": Signature({"x": Tensor("float32", (1,))}, {"y": Tensor("float32", ())}),
}
"""What each model of the suite takes and answers.

``scores``: the dot product of x with WEIGHTS. ``several``: a + b + c, and b. ``text``: t, and 1 for "red", 2 for "é",
else 0. ``matrix``: each row transposed. ``ragged``: the sum of x. ``half``, ``double``, ``bool``, ``int32``: x.
``first_row``: x, but of the first row only. ``other_shape``: x, three columns or not. ``picky``: refuses any i above 2.
``greedy``: needs more memory than there is.
"""


def text(*values: object) -> Array:
    """Values as an object array."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def sample(model: Model, rows: int) -> dict[str, Array]:
    """Valid inputs for a model of the suite."""
    inputs: dict[str, Array] = {}
    for name, tensor in model.signature.inputs.items():
        shape = (rows, *(4 if size is None else size for size in tensor.shape))
        if tensor.dtype == "text":
            inputs[name] = text(*RNG.choice(["red", "é", "blue"], rows).tolist())
        else:
            inputs[name] = (RNG.normal(size=shape) > 0).astype(tensor.dtype)
    return inputs


def part(inputs: Mapping[str, Array], rows: slice) -> dict[str, Array]:
    """Some rows of all inputs."""
    return {name: column[rows] for name, column in inputs.items()}


class ModelBehaviours:
    """Subclasses give the fixture ``models`` a value: models of the suite by their name."""

    @pytest.fixture
    def models(self) -> Mapping[str, Model]:
        raise NotImplementedError

    @pytest.mark.parametrize("name", SIGNATURES)
    def test_signature_is_the_declared_one(self, models: Mapping[str, Model], name: str) -> None:
        signature = models[name].signature
        assert signature == SIGNATURES[name]
        assert list(signature.inputs) == list(SIGNATURES[name].inputs)
        assert (models[name].name, models[name].version) == (name.replace("_", "-"), "1")

    def test_scores_are_the_models(self, models: Mapping[str, Model]) -> None:
        x = RNG.normal(size=(5, 3)).astype(np.float32)
        np.testing.assert_allclose(models["scores"].run({"x": x})["y"], x @ WEIGHTS, rtol=1e-6)

    def test_inputs_are_taken_by_name_not_by_order(self, models: Mapping[str, Model]) -> None:
        inputs = {"c": np.array([True, False]), "b": np.array([10, 20]), "a": np.array([0.5, 0.25], np.float32)}
        outputs = models["several"].run(inputs)
        assert outputs["total"].tolist() == [11.5, 20.25]
        assert outputs["b_again"].tolist() == [10, 20]

    def test_outputs_come_in_the_signatures_order_and_types(self, models: Mapping[str, Model]) -> None:
        outputs = models["several"].run(sample(models["several"], 2))
        assert [(name, array.dtype.name) for name, array in outputs.items()] == [
            ("total", "float64"),
            ("b_again", "int64"),
        ]

    def test_text_goes_in_and_out_whole(self, models: Mapping[str, Model]) -> None:
        outputs = models["text"].run({"t": text("red", "é", "", "nul\0inside\0")})
        assert outputs["t_again"].tolist() == ["red", "é", "", "nul\0inside\0"]
        assert outputs["t_again"].dtype == object
        assert outputs["code"].tolist() == [1, 2, 0, 0]

    def test_each_row_of_a_matrix_is_its_own(self, models: Mapping[str, Model]) -> None:
        x = RNG.normal(size=(4, 2, 3)).astype(np.float32)
        np.testing.assert_array_equal(models["matrix"].run({"x": x})["y"], x.transpose(0, 2, 1))

    @pytest.mark.parametrize("width", [1, 3, 17])
    def test_a_dimension_of_any_length_takes_any(self, models: Mapping[str, Model], width: int) -> None:
        x = np.ones((2, width), np.float32)
        assert models["ragged"].run({"x": x})["y"].tolist() == [width, width]

    @pytest.mark.parametrize("name", ["half", "double", "bool", "int32"])
    def test_type_is_kept(self, models: Mapping[str, Model], name: str) -> None:
        x = sample(models[name], 3)["x"]
        y = models[name].run({"x": x})["y"]
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(x, y)

    @pytest.mark.parametrize("name", ["scores", "several", "text", "matrix", "ragged", "half", "double"])
    def test_one_by_one_and_all_at_once_agree(self, models: Mapping[str, Model], name: str) -> None:
        model, rows = models[name], 33
        inputs = sample(model, rows)
        at_once = model.run(inputs)
        singly = [model.run(part(inputs, slice(row, row + 1))) for row in range(rows)]
        for output, whole in at_once.items():
            joined = np.concatenate([answer[output] for answer in singly])
            if whole.dtype == object:
                assert joined.tolist() == whole.tolist()
            else:
                np.testing.assert_allclose(joined, whole, rtol=1e-6)

    def test_not_a_number_passes_through_to_its_own_row(self, models: Mapping[str, Model]) -> None:
        x = np.array([[1, 1, 1], [np.nan, 1, 1], [np.inf, 1, 1]], np.float32)
        assert np.isfinite(models["scores"].run({"x": x})["y"]).tolist() == [True, False, False]

    def test_inputs_may_be_read_only_and_strided(self, models: Mapping[str, Model]) -> None:
        wide = RNG.normal(size=(8, 6)).astype(np.float32)
        x = wide[::2, ::2]
        x.setflags(write=False)
        before = x.copy()
        np.testing.assert_allclose(models["scores"].run({"x": x})["y"], x @ WEIGHTS, rtol=1e-6)
        np.testing.assert_array_equal(x, before)

    @pytest.mark.parametrize("names", [["X"], [""], [], ["x", "y"]])
    def test_wrong_input_names_are_a_fault_that_says_the_right_ones(
        self, models: Mapping[str, Model], names: list[str]
    ) -> None:
        with pytest.raises(ModelFault, match="'x'"):
            models["scores"].run({name: np.zeros((2, 3), np.float32) for name in names})

    @pytest.mark.parametrize(
        "x",
        [
            np.zeros((2, 4), np.float32),
            np.zeros((2, 3, 1), np.float32),
            np.zeros(3, np.float32),
            np.array(0, np.float32),
            np.zeros((2, 3), np.float64),
            np.zeros((2, 3), np.float16),
            np.zeros((2, 3), np.int64),
            np.zeros((2, 3), np.bool_),
            np.zeros((2, 3), ">f4"),
            np.zeros((2, 3), object),
            np.zeros((0, 3), np.float32),
            np.ma.masked_equal(np.zeros((2, 3), np.float32), 1),
            [[0.0, 0.0, 0.0]],
        ],
        ids=lambda x: f"{type(x).__name__}-{getattr(x, 'dtype', '')}-{getattr(x, 'shape', '')}",
    )
    def test_wrong_input_is_a_fault_that_names_it(self, models: Mapping[str, Model], x: Array) -> None:
        with pytest.raises(ModelFault, match="Input 'x' of model scores@1"):
            models["scores"].run({"x": x})

    def test_scalar_is_no_column(self, models: Mapping[str, Model]) -> None:
        with pytest.raises(ModelFault, match=r"Input 'i' .* int64\[\] instead of int64\[rows\]"):
            models["picky"].run({"i": np.array(1)})

    def test_fault_says_what_it_got_and_what_it_wants(self, models: Mapping[str, Model]) -> None:
        with pytest.raises(ModelFault, match=r"float64\[2, 4\].*float32\[rows, 3\]"):
            models["scores"].run({"x": np.zeros((2, 4))})

    def test_inputs_of_different_lengths_are_a_fault(self, models: Mapping[str, Model]) -> None:
        inputs = sample(models["several"], 3)
        inputs["b"] = inputs["b"][:2]
        with pytest.raises(ModelFault, match=r"Input 'b' .* has 2 rows instead of 3"):
            models["several"].run(inputs)

    @pytest.mark.parametrize("stranger", [None, b"red", 3, 1.5, ["red"]])
    def test_anything_but_text_in_a_text_input_is_a_fault(self, models: Mapping[str, Model], stranger: object) -> None:
        with pytest.raises(ModelFault, match=f"'t' .* holds {type(stranger).__name__} instead of text"):
            models["text"].run({"t": text("red", stranger)})

    def test_answer_with_another_number_of_rows_is_a_fault(self, models: Mapping[str, Model]) -> None:
        assert len(models["first_row"].run(sample(models["first_row"], 1))["y"]) == 1
        with pytest.raises(ModelFault, match="Output 'y' of model first-row@1 has 1 rows instead of 2"):
            models["first_row"].run(sample(models["first_row"], 2))

    def test_answer_of_another_shape_is_a_fault(self, models: Mapping[str, Model]) -> None:
        assert models["other_shape"].run({"x": np.ones((2, 3), np.float32)})["y"].shape == (2, 3)
        with pytest.raises(ModelFault, match=r"Output 'y' .* float32\[2, 5\] instead of float32\[rows, 3\]"):
            models["other_shape"].run({"x": np.ones((2, 5), np.float32)})

    def test_rows_that_the_model_refuses_are_rejected_and_the_others_pass(self, models: Mapping[str, Model]) -> None:
        assert models["picky"].run({"i": np.array([0, 2])})["y"].tolist() == [0.0, 2.0]
        with pytest.raises(ModelRejected, match="picky@1"):
            models["picky"].run({"i": np.array([0, SECRET])})
        assert models["picky"].run({"i": np.array([1])})["y"].tolist() == [1.0]

    def test_no_message_quotes_a_value(self, models: Mapping[str, Model]) -> None:
        with pytest.raises(ModelRejected) as rejected:
            models["picky"].run({"i": np.array([SECRET])})
        with pytest.raises(ModelFault) as fault:
            models["text"].run({"t": text("red", SECRET)})
        assert str(SECRET) not in str(rejected.value) + str(fault.value)

    def test_m5_too_little_memory_is_told_and_the_model_lives_on(self, models: Mapping[str, Model]) -> None:
        for _ in range(2):
            with pytest.raises(ModelOutOfMemory, match="greedy@1 ran out of memory"):
                models["greedy"].run({"x": np.ones((2, 1), np.float32)})

    def test_closed_model_is_a_fault_and_closing_twice_is_not(self, models: Mapping[str, Model]) -> None:
        model = models["scores"]
        model.run(sample(model, 1))
        model.close()
        model.close()
        with pytest.raises(ModelFault, match="scores@1 was closed"):
            model.run(sample(model, 1))
