"""Small ONNX files for tests, made with ``onnx.helper``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from streamml.adapters.models.model_toml import write_toml
from streamml.adapters.models.onnx_session import signature_of
from streamml.adapters.models.repository import ModelFiles, find
from streamml.batch.column import Array

Shape = Sequence[str | int | None]

ELEMENTS = {
    "bool": TensorProto.BOOL,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "text": TensorProto.STRING,
}


def value(name: str, dtype: str, shape: Shape | None) -> ValueInfoProto:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, ELEMENTS[dtype], shape)


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> NodeProto:
    """An operator of the standard set, or of ``ai.onnx.ml`` where only that one has it."""
    domain = "ai.onnx.ml" if operator in ("LabelEncoder", "ZipMap") else ""
    return helper.make_node(operator, inputs, outputs, domain=domain, name=f"{operator}_{outputs[0]}", **attributes)


def graph(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    constants: dict[str, Array] | None = None,
) -> ModelProto:
    """A model in a format that every supported ONNX Runtime reads."""
    initializers = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    whole = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    return helper.make_model(whole, opset_imports=sets, ir_version=8)


def identity(dtype: str = "float32", shape: Shape = ("rows", 2)) -> ModelProto:
    """``y`` is ``x``."""
    return graph([node("Identity", ["x"], ["y"])], [value("x", dtype, shape)], [value("y", dtype, shape)])


def with_external_data(location: str, where: str = "initializer") -> ModelProto:
    """``y`` is ``x`` plus two floats that lie in another file.

    Args:
        location: of that file, as it is written in the model.
        where: the place of the tensor in the model: ``initializer``, ``attribute`` or ``branch``.
    """
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", "0"), ("length", "8")):
        tensor.external_data.add(key=key, value=text)
    add = node("Add", ["x", "w"], ["y"])
    model = graph([add], [value("x", "float32", ["rows", 2])], [value("y", "float32", ["rows", 2])])
    if where == "initializer":
        model.graph.initializer.append(tensor)
        return model
    constant = NodeProto(op_type="Constant", output=["w"])
    constant.attribute.add(name="value", type=AttributeProto.TENSOR).t.CopyFrom(tensor)
    nodes = [constant]
    if where == "branch":
        branch = helper.make_graph([constant], "branch", [], [value("w", "float32", [2])])
        always = node("Constant", [], ["always"], value=numpy_helper.from_array(np.array(True)))
        nodes = [always, node("If", ["always"], ["w"], then_branch=branch, else_branch=branch)]
    model.graph.node.remove(add)
    model.graph.node.extend([*nodes, add])
    return model


def store(root: Path, model: ModelProto, name: str = "test", version: str = "1") -> ModelFiles:
    """Put a model into a repository, with its ``model.toml``, and find it there."""
    folder = root / name / version
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    write_toml(folder, signature_of(folder / "model.onnx"), {"rows": 10}, {"by": "a test"})
    return find(root, name, version)


def hungry(most_rows: int) -> ModelProto:
    """``score`` is ``x[:, 0]``, for at most ``most_rows`` rows: more need a petabyte, and so does a row of a million alone.

    A batch with a 13 in it is refused, as by a lookup in a table that has no such place.
    """
    first = {"zero": np.array(0), "axes": np.array([1]), "one": np.array([1])}
    limits = {"most": np.array([most_rows]), "vast": np.array([1 << 50]), "million": np.array(1e6, np.float32)}
    table = {"nil": np.zeros(1, np.float32), "unlucky": np.array(13, np.float32), "nowhere": np.array(99)}
    return graph(
        [
            node("Gather", ["x", "zero"], ["amount"], axis=1),
            node("Shape", ["x"], ["rows"], end=1),
            node("Greater", ["rows", "most"], ["many"]),
            node("ReduceMax", ["amount"], ["largest"], keepdims=1),
            node("GreaterOrEqual", ["largest", "million"], ["large"]),
            node("Or", ["many", "large"], ["needs"]),
            node("Where", ["needs", "vast", "one"], ["size"]),
            node("Expand", ["nil", "size"], ["filled"]),
            node("ReduceSum", ["filled"], ["nothing"], keepdims=0),
            node("Equal", ["amount", "unlucky"], ["refused"]),
            node("Where", ["refused", "nowhere", "zero"], ["place"]),
            node("Gather", ["nil", "place"], ["zeros"]),
            node("Sum", ["amount", "nothing", "zeros"], ["score"]),
        ],
        [value("x", "float32", ["rows", 2])],
        [value("score", "float32", ["rows"])],
        first | limits | table,
    )
