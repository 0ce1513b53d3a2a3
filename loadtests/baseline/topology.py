"""The job that peers were measured at: ten-field events, 16 features of an account, a small network, a JSON prediction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from pydantic import BaseModel

import streamml as sm


class Event(BaseModel):
    """About 190 bytes of JSON."""

    event_id: str
    account: int
    amount: float
    merchant: int
    country: str
    hour: int
    weekday: int
    channel: str
    balance: float
    days_since_opened: int


class Prediction(BaseModel):
    """The event's id and its score."""

    event_id: str
    score: float


account = sm.FeatureSet("account", key="account", columns={f"f{place}": sm.f4(default=0.0) for place in range(16)})

RECENT: Final = ("f12", "f13", "f14", "f15")
recent = sm.FeatureSet(
    "recent", key="account", ttl="7d", kind="streaming", columns={name: sm.f4(default=0.0) for name in RECENT}
)

FIELDS: Final = ("amount", "merchant", "hour", "weekday", "balance", "days_since_opened")
STORED: Final = tuple(account.outputs)


STORED_IN_TWO: Final = tuple(f"recent.{name}" if name in RECENT else f"account.{name}" for name in account.columns)


def model_inputs(columns: dict[str, Any]) -> dict[str, Any]:
    """Six fields and sixteen features as one matrix."""
    return _matrix(columns, (*FIELDS, *STORED))


def model_inputs_of_two(columns: dict[str, Any]) -> dict[str, Any]:
    """The same with four of the features out of the second set."""
    return _matrix(columns, (*FIELDS, *STORED_IN_TWO))


def _matrix(columns: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    x = np.empty((len(columns["amount"]), 22), np.float32)
    for place, name in enumerate(names):
        x[:, place] = columns[name]
    return {"x": x}


topology = sm.Topology(
    "baseline",
    source=sm.Source("baseline.events", schema=Event, start="earliest"),
    steps=[
        sm.FeatureLookup(account),
        sm.Transform(model_inputs, inputs=(*FIELDS, *STORED), outputs={"x": "f4[22]"}),
        sm.Onnx("mlp", outputs={"score": "score"}, batching=sm.Batching(max_batch_size=2048)),
    ],
    sink=sm.Sink("baseline.predictions", schema=Prediction, key="event_id"),
    dead_letters=sm.DeadLetterQueue("baseline.dlq"),
)

two_sets = replace(
    topology,
    steps=(
        sm.FeatureLookup(account, recent),
        sm.Transform(model_inputs_of_two, inputs=(*FIELDS, *STORED_IN_TWO), outputs={"x": "f4[22]"}),
        topology.steps[2],
    ),
)
"""The same job with a fast set of the account beside the slow one; four of its values take the place of others."""
