"""The job that peers were measured at: ten-field events, 16 features of an account, a small network, a JSON prediction."""

from __future__ import annotations

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

FIELDS: Final = ("amount", "merchant", "hour", "weekday", "balance", "days_since_opened")
STORED: Final = tuple(account.outputs)


def model_inputs(columns: dict[str, Any]) -> dict[str, Any]:
    """Six fields and sixteen features as one matrix."""
    x = np.empty((len(columns["amount"]), 22), np.float32)
    for place, name in enumerate((*FIELDS, *STORED)):
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
