"""The three topologies pass a strict type checker, their own check, and do what they say."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from streamml.adapters.memory.model import FunctionModel
from streamml.batch.column import Columns
from streamml.ports.model import Signature, Tensor
from streamml.ports.source import TopicPartition
from streamml.testing import TopologyDriver
from streamml.topology.check import problems
from streamml.topology.topology import Topology
from tests.typing.topologies import accounts, tabular, two_topics, vision

F4 = "float32"
SIGNATURES = {
    "fraud": Signature({"x": Tensor(F4, (5,))}, {"probabilities": Tensor(F4, (2,))}),
    "detector": Signature(
        {"image": Tensor(F4, (1, 8, 8))}, {"boxes": Tensor(F4, (4, 2)), "confidences": Tensor(F4, (4,))}
    ),
    "reader": Signature({"x": Tensor(F4, (1, 4, 4))}, {"logits": Tensor(F4, (3, 26))}),
    "mood": Signature(
        {"text": Tensor("text", ()), "given": Tensor("int64", ()), "vector": Tensor(F4, (8,))},
        {"positive": Tensor(F4, ())},
    ),
}


def test_they_type_check_as_their_users_would() -> None:
    file = Path(__file__).parent / "topologies.py"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("topology", [tabular, vision, two_topics], ids=lambda topology: topology.name)
def test_they_have_no_problem(topology: Topology) -> None:
    assert problems(topology, SIGNATURES) == []


def test_tabular() -> None:
    def score(inputs: Columns) -> Columns:
        late = inputs["x"].sum(axis=1) / 100
        return {"probabilities": np.stack([1 - late, late], axis=1).astype(np.float32)}

    driver = TopologyDriver(tabular, models={"fraud": FunctionModel("fraud", "1", SIGNATURES["fraud"], score)})
    driver.features(accounts, {"ann": {"mean": 2.0, "recent": [1.0, 1.0, 1.0]}}, event_time=datetime(2026, 1, 1))
    now = "2026-01-01T00:00:00Z"
    driver.send({"id": "p", "account": "ann", "amount": 5.0, "at": now})
    driver.send({"id": "q", "account": "ann", "amount": -5.0, "at": now})
    driver.settle()
    (prediction,) = driver.predictions()
    assert prediction.value["probability"] == pytest.approx(0.10)
    assert [letter.message for letter in driver.dead_letters()] == ["The amount is negative."]


def test_detect_crop_recognise_gives_a_child_for_each_box() -> None:
    def detect(inputs: Columns) -> Columns:
        rows = len(inputs["image"])
        sure = inputs["image"][:, 0, 0, :4]  # the first pixels say which boxes there are
        boxes = np.broadcast_to(np.array([[0, 0], [0, 4], [4, 0], [4, 4]], np.float32), (rows, 4, 2))
        return {"boxes": boxes.copy(), "confidences": np.ascontiguousarray(sure)}

    def read(inputs: Columns) -> Columns:
        logits = np.zeros((len(inputs["x"]), 3, 26), np.float32)
        logits[:, :, 1] = 1.0
        return {"logits": logits}

    models = {
        name: FunctionModel(name, "1", SIGNATURES[name], function)
        for name, function in (("detector", detect), ("reader", read))
    }
    driver = TopologyDriver(vision, models=models)
    two, none, small = [0.9, 0.1, 0.8, *[0.0] * 61], [0.0] * 64, [1.0] * 9
    for camera, pixels in (("two", two), ("none", none), ("small", small)):
        driver.send({"camera": camera, "pixels": pixels}, partition=0)
    driver.settle()
    found = driver.predictions()
    assert [one.id for one in found] == ["images/0/0#0", "images/0/0#1"]
    assert [one.value["confidence"] for one in found] == pytest.approx([0.9, 0.8])
    assert {one.value["text"] for one in found} == {"BBB"}
    assert [letter.message for letter in driver.dead_letters()] == ["The image is not 8 x 8."]
    assert driver.commits()[TopicPartition("images", 0)] == 3


def test_two_topics_with_nulls_text_and_vectors() -> None:
    def mood(inputs: Columns) -> Columns:
        glad = ["good" in text for text in inputs["text"].tolist()]
        return {"positive": (np.array(glad) + inputs["vector"].sum(axis=1)).astype(np.float32)}

    driver = TopologyDriver(two_topics, models={"mood": FunctionModel("mood", "1", SIGNATURES["mood"], mood)})
    vector = [0.0] * 7 + [0.5]
    driver.send({"id": "a", "title": "good", "body": "x", "stars": 4, "embedding": vector}, topic="reviews.web")
    driver.send({"id": "b", "title": None, "body": "bad", "embedding": vector}, topic="reviews.app")
    driver.send({"id": "c", "body": "  ", "embedding": []}, topic="reviews.app")
    driver.settle()
    found = {one.value["id"]: one.value for one in driver.predictions()}
    assert {id: (value["positive"], value["stars"]) for id, value in found.items()} == {"a": (1.5, 4), "b": (0.5, None)}
    assert found["b"]["prediction_id"].startswith("reviews.app/")
    assert found["b"]["model"] == "mood@1"
