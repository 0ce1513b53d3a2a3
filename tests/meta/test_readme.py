"""The README is true: its topology scores an event, its lines run, what it names is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamml.adapters.memory.model import FunctionModel
from streamml.adapters.models.repository import find
from streamml.batch.column import Columns
from streamml.cli.bench import command as bench
from streamml.errors import ConfigError
from streamml.ports.model import Signature, Tensor
from streamml.settings.sources import read_settings
from streamml.testing import TopologyDriver
from streamml.topology.check import problems
from tests.conformance.onnx_files import identity, store

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_topology_of_the_readme_scores_an_event() -> None:
    block = BLOCKS[0]
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


def test_the_lines_of_the_readme_write_a_model_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (store(tmp_path / "fraud" / "models", identity(), "fraud").folder / "model.toml").unlink()
    with pytest.raises(ConfigError, match="write_toml"):
        find(tmp_path / "fraud" / "models", "fraud")
    exec(BLOCKS[1], {})
    assert find(tmp_path / "fraud" / "models", "fraud").metrics == {"auc": 0.93}


@pytest.mark.parametrize("name", re.findall(r"`(STREAMML_[A-Z_]+)`", README))
def test_variables_that_the_readme_names_are_settings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert name in read_settings(environment={name: "100"}).origins.values()


def test_what_make_says_is_not_in_what_programs_read() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert [line for line in makefile.splitlines() if "@echo" in line and not line.endswith(">&2")] == []


def test_the_minutes_of_the_benchmark_are_the_same_everywhere() -> None:
    told = " ".join([(ROOT / page).read_text() for page in ("Makefile", "CONTRIBUTING.md")])
    assert "about nine minutes" in told
    assert "about nine minutes" in str(bench.help)
