"""Which models are measured before a worker joins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import streamml as sm
from streamml.adapters.models.python import PythonModel
from streamml.compose.sweep import sweep


class Event(BaseModel):
    amount: float


class Score(BaseModel):
    score: float


CALLS: list[int] = []


def factory() -> Any:
    def score(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        CALLS.append(len(columns["amount"]))
        return {"score": np.zeros(len(columns["amount"]))}

    return score


def costs_of(**changes: Any) -> dict[str, dict[int, float]]:
    CALLS.clear()
    batching = sm.Batching(max_batch_size=8, latency_budget="50ms")
    given = {"inputs": {"amount": "f8"}, "outputs": {"score": "f8"}, "version": "1", "batching": batching, **changes}
    step = sm.Python(factory, **given)
    topology = sm.Topology(
        "scores",
        source=sm.Source("events", schema=Event, start="earliest"),
        steps=[step],
        sink=sm.Sink("scored", schema=Score),
        dead_letters=sm.DeadLetterQueue("letters"),
    )
    model = PythonModel.load(step)
    try:
        return sweep(topology, {"factory": model})
    finally:
        model.close()


def test_a_model_with_a_budget_is_measured_at_each_size_of_its_ladder() -> None:
    """M1.3."""
    assert list(costs_of()["factory"]) == [1, 2, 4, 8]


@pytest.mark.parametrize("changes", [{"warm_up": False}, {"calls": sm.Calls(cost=1.0, cost_cap=1000.0)}])
def test_a_model_that_costs_money_is_not(changes: dict[str, Any]) -> None:
    """What the measurement spends would be taken off what its cost_cap leaves for records."""
    assert costs_of(**changes) == {}
    assert CALLS == []
