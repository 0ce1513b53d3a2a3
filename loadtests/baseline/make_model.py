"""Write the network 22-64-64-1 with seeded weights: ``python -m loadtests.baseline.make_model`` (needs ``onnx``)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "models" / "mlp" / "1"
LAYERS = (22, 64, 64, 1)


def main() -> None:
    """Make the model and its description."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from streamml.adapters.models.model_toml import write_toml
    from streamml.adapters.models.onnx_session import signature_of

    random = np.random.default_rng(22)
    nodes: list[Any] = []
    weights: list[Any] = []
    last = "x"
    for number, (width, height) in enumerate(pairwise(LAYERS)):
        values = random.normal(0.0, 1.0 / np.sqrt(width), (width, height)).astype(np.float32)
        # Raw fields are as large as 10,000; the first layer takes them to the size of one.
        values *= 0.01 if number == 0 else 1.0
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        out = f"layer{number}"
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [out]))
        last = "score" if number == len(LAYERS) - 2 else f"active{number}"
        nodes.append(helper.make_node("Sigmoid" if last == "score" else "Relu", [out], [last]))
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 22])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows", 1])],
        weights,
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(FOLDER / "model.onnx"))
    write_toml(
        FOLDER, signature_of(FOLDER / "model.onnx"), {}, {"code": "loadtests/baseline/make_model.py", "seed": 22}
    )


if __name__ == "__main__":
    main()
