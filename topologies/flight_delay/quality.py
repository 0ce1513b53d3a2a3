"""How good the predictions are, held against what really happened and against a baseline that knows the departure delay only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from topologies.flight_delay.data import LATE_MINUTES

KNOTS: Final = (-10.0, 0.0, 10.0, 20.0, 30.0, 45.0, 90.0)
_BASELINE: Final = Path(__file__).parent / "baseline.json"


def auc(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: how often a late flight has a higher score than one that is not; ties count half (Mann-Whitney)."""
    distinct, inverse = np.unique(scores, return_inverse=True)
    late = np.bincount(inverse, weights=positive, minlength=len(distinct))
    other = np.bincount(inverse, weights=~positive, minlength=len(distinct))
    below = np.cumsum(other) - other
    pairs = late.sum() * other.sum()
    return float((late * (below + other / 2)).sum() / pairs) if pairs else float("nan")


def brier(probabilities: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Mean squared difference between probability and outcome; lower is better (Brier, 1950)."""
    return float(np.mean((probabilities - positive) ** 2)) if len(probabilities) else float("nan")


def piecewise(departure_delay: NDArray[Any]) -> NDArray[np.float64]:
    """The delay at departure in hours beyond each knot, ``[n, 7]``: what the baseline's logistic regression sees."""
    beyond = [np.clip(departure_delay - knot, 0.0, 300.0) / 60.0 for knot in KNOTS]
    return np.stack(beyond, axis=1).astype(np.float64)


def baseline_probability(departure_delay: NDArray[Any]) -> NDArray[np.float64]:
    """What the baseline says; ``[n]``."""
    weights = np.array(json.loads(_BASELINE.read_text())["weights"])
    answer: NDArray[np.float64] = 1 / (1 + np.exp(-(weights[0] + piecewise(departure_delay) @ weights[1:])))
    return answer


class Quality:
    """Collects predictions and judges them; both may be done at once, by different threads.

    Args:
        truth: minutes of delay on arrival by flight id. A flight that was diverted has none and is left out.
    """

    def __init__(self, truth: Mapping[str, float]) -> None:
        self._place = {flight: place for place, flight in enumerate(truth)}
        self._late = np.fromiter(truth.values(), np.float64, len(truth)) >= LATE_MINUTES
        # Probability of being late and delay at departure, by flight; NaN where there is no prediction yet.
        self._predicted = np.full((len(truth), 2), np.nan)

    def add(self, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Take further predictions; of a flight the latest counts."""
        for one in predictions:
            place = self._place.get(one["flight_id"])
            if place is not None:
                self._predicted[place] = one["late_probability"], one["departure_delay"]

    def figures(self) -> dict[str, Any]:
        """AUC and Brier score of the predictions and of the baseline, and on how many flights."""
        predicted = self._predicted.copy()
        there = ~np.isnan(predicted).any(axis=1)
        model, departure_delay = predicted[there].T
        late = self._late[there]
        baseline = baseline_probability(departure_delay)
        return {
            "flights": len(late),
            "auc": round(auc(model, late), 4),
            "brier": round(brier(model, late), 4),
            "baseline_auc": round(auc(baseline, late), 4),
            "baseline_brier": round(brier(baseline, late), 4),
        }
