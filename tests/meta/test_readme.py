"""The topology in the README is one: it loads, has no problem, and scores an event."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from streamml.adapters.memory.model import FunctionModel
from streamml.batch.column import Columns
from streamml.ports.model import Signature, Tensor
from streamml.testing import TopologyDriver
from streamml.topology.check import problems

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_topology_of_the_readme_scores_an_event() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(block.splitlines()) < 40
    names: dict[str, Any] = {"__name__": "readme"}
    exec(block, names)
    signature = Signature({"x": Tensor("float32", (2,))}, {"probabilities": Tensor("float32", (2,))})

    def score(inputs: Columns) -> Columns:
        chance = inputs["x"][:, 0] / (inputs["x"][:, 0] + inputs["x"][:, 1])
        return {"probabilities": np.stack([1 - chance, chance], axis=1).astype(np.float32)}

    assert problems(names["topology"], {"fraud": signature}) == []
    driver = TopologyDriver(names["topology"], models={"fraud": FunctionModel("fraud", "1", signature, score)})
    driver.features(names["accounts"], {"ann": {"mean": 30.0}})
    driver.send({"id": "p", "account": "ann", "amount": 10.0})
    driver.settle()
    (prediction,) = driver.predictions()
    assert prediction.value == {"id": "p", "probability": 0.25}
