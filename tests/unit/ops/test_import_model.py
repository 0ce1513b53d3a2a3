"""A trained model becomes a version in the repository that says how true it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from streamml.adapters.models.onnx import OnnxModel
from streamml.adapters.models.repository import find
from streamml.cli.main import exit_code_of

joblib = pytest.importorskip("joblib")
lightgbm = pytest.importorskip("lightgbm")
linear = pytest.importorskip("sklearn.linear_model")

RNG = np.random.default_rng(5)
X = RNG.normal(size=(300, 3)).astype(np.float32).astype(np.float64)
NAMES = ["a", "b", "c"]


def sample(folder: Path, x: np.ndarray = X, names: list[str] | None = None) -> Path:
    path = folder / "sample.parquet"
    columns = dict(zip(names or NAMES, x.T, strict=True))
    parquet.write_table(pyarrow.table(columns), path)
    return path


def trees(folder: Path, y: np.ndarray, x: np.ndarray = X, **settings: Any) -> Any:
    data = lightgbm.Dataset(x, y, feature_name=NAMES)
    given = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5, **settings}
    booster = lightgbm.train(given, data, num_boost_round=5)
    booster.save_model(folder / "model.txt")
    return booster


def run(folder: Path, file: str, *more: str) -> int:
    given = ["model", "import", str(folder / file), "--check", str(folder / "sample.parquet"), "--name", "m"]
    return exit_code_of([*given, "--repository", str(folder / "models"), *more])


@pytest.mark.parametrize(
    ("objective", "output"), [("binary", "probabilities"), ("regression", "variable"), ("multiclass", "probabilities")]
)
def test_lightgbm(tmp_path: Path, capsys: pytest.CaptureFixture[str], objective: str, output: str) -> None:
    y = {"binary": X[:, 0] > 0, "regression": X[:, 0], "multiclass": np.digitize(X[:, 1], [-0.5, 0.5])}[objective]
    more: dict[str, Any] = {"num_class": 3} if objective == "multiclass" else {}
    booster = trees(tmp_path, y, objective=objective, **more)
    # Columns are found by name, whatever their order.
    sample(tmp_path, X[:, ::-1], NAMES[::-1])
    assert run(tmp_path, "model.txt", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["differences"][output]["largest"] < 1e-5
    files = find(tmp_path / "models", "m")
    assert files.version == "1"
    assert files.metrics[f"largest_difference_{output}"] == told["differences"][output]["largest"]
    scored = OnnxModel.load(files).run({"x": X.astype(np.float32)})[output]
    expected = booster.predict(X)
    np.testing.assert_allclose(
        scored[:, 1] if objective == "binary" else scored.reshape(expected.shape), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    "model", [linear.LogisticRegression(), linear.LinearRegression()], ids=lambda one: type(one).__name__
)
def test_scikit_learn(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Any) -> None:
    joblib.dump(model.fit(X, X[:, 0] > 0), tmp_path / "model.joblib")
    sample(tmp_path)
    assert run(tmp_path, "model.joblib", "--i-trust-this-file") == 0
    assert "differs by at most" in capsys.readouterr().out
    assert run(tmp_path, "model.joblib", "--i-trust-this-file") == 0
    assert find(tmp_path / "models", "m").version == "2"


def test_changed_outputs_are_a_warning_that_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Values that differ in float64 alone fall into one leaf as float32."""
    x = np.repeat(1.0 + np.arange(2)[:, None] * 1e-12, 3, axis=1)[np.arange(200) % 2]
    trees(tmp_path, np.arange(200) % 2.0, x, objective="regression", min_data_in_bin=1)
    sample(tmp_path, x)
    assert run(tmp_path, "model.txt", "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["differences"]["variable"]["rows"] == 100
    assert "variable changes by more than 1e-05 in 100 of 200 rows" in told.err
    assert "float32, which does not hold all values of a, b, c" in told.err


class _Trap:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._marker),)


def test_l5_pickle_is_read_only_if_somebody_vouches_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """L5.3."""
    marker = tmp_path / "the-pickle-ran"
    joblib.dump(_Trap(marker), tmp_path / "model.joblib")
    sample(tmp_path)
    assert run(tmp_path, "model.joblib") == 2
    assert "--i-trust-this-file" in capsys.readouterr().err
    assert not marker.exists()
    assert run(tmp_path, "model.joblib", "--i-trust-this-file") == 2
    assert marker.exists()


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees(tmp_path, X[:, 0], objective="regression")
    sample(tmp_path, X[:, :2], NAMES[:2])
    assert run(tmp_path, "model.txt") == 2
    assert "the model takes 3 features, namely a, b, c" in capsys.readouterr().err
    (tmp_path / "model.txt").write_text("no trees")
    assert run(tmp_path, "model.txt") == 2
    assert run(tmp_path, "model.bin") == 2
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("more", [("--name", "../outside"), ("--version", "../../outside"), ("--name", "a b")])
def test_name_that_leads_out_of_the_repository_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, str]
) -> None:
    trees(tmp_path, X[:, 0], objective="regression")
    sample(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert run(tmp_path, "model.txt", *more) == 2
    assert "cannot name a model or a version" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
