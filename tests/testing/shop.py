"""A small topology, as a user would write one: is this payment fraud?"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from pydantic import BaseModel

import streamml as sm
from streamml.batch.column import Columns
from streamml.testing import TopologyDriver


class Payment(BaseModel):
    id: str
    account: str
    amount: float
    at: datetime


class Verdict(BaseModel):
    id: str
    score: float


accounts = sm.FeatureSet(
    "accounts",
    key="account",
    ttl="36h",
    columns={"mean": sm.f4(default=10.0)},
    max_default_ratio=1.0,
)


def inputs(columns: Columns) -> dict[str, Any]:
    amount = columns["amount"]
    x = np.stack([amount, columns["accounts.mean"]], axis=1).astype(np.float32)
    return {"x": x, **sm.failures(amount < 0, "The amount is negative.")}


def score(tensors: Columns) -> Columns:
    """Stands in for the model: how many times the usual amount it is."""
    if (tensors["x"][:, 0] == 13).any():
        raise ValueError("13 is poison")
    return {"score": tensors["x"][:, 0] / tensors["x"][:, 1]}


def payments(**source: Any) -> sm.Topology:
    return sm.Topology(
        "payments",
        source=sm.Source("payments", schema=Payment, start="earliest", **source),
        steps=[
            sm.Filter(lambda columns: columns["amount"] != 0, inputs=("amount",), name="not_zero"),
            sm.FeatureLookup(accounts),
            sm.Transform(inputs, inputs=("amount", "accounts.mean"), outputs={"x": "f4[2]"}),
            sm.Onnx(
                "fraud", outputs={"score": "score"}, batching=sm.Batching(max_batch_size=64, latency_budget="50ms")
            ),
        ],
        sink=sm.Sink("verdicts", schema=Verdict, key="id", headers=("trace",)),
        dead_letters=sm.DeadLetterQueue("payments.dlq", max_ratio=1.0),
    )


def payment(number: int, amount: float = 20.0, account: str = "ann") -> Payment:
    return Payment(id=f"p{number}", account=account, amount=amount, at=datetime(2024, 1, 1))


def driver(topology: sm.Topology | None = None, **options: Any) -> TopologyDriver:
    """With a model, and one account loaded."""
    made = TopologyDriver(topology or payments(), models={"fraud": score}, **options)
    made.features(accounts, {"ann": {"mean": 5.0}})
    return made
