"""How late will this flight arrive? Asked when it leaves New York; answered from the flight, from what was known at midnight, and from how
flights arrived in the hours before.

A prediction is the probability of arriving 15 or more minutes late, and the expected delay on arrival.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import numpy as np
from pydantic import BaseModel

import streamml as sm
from topologies.flight_delay.localtime import local_time


class Departure(BaseModel):
    """An aircraft left the gate."""

    flight_id: str
    carrier: str
    flight: int
    tailnum: str
    origin: str
    dest: str
    distance: int  # miles
    scheduled_at: datetime
    departed_at: datetime
    day: str  # date in New York at departure
    hour: str  # UTC hour of departure


class ArrivalPrediction(BaseModel):
    """What to expect of its arrival."""

    flight_id: str
    carrier: str
    origin: str
    dest: str
    departure_delay: float  # minutes
    late_probability: float  # of arriving 15 or more minutes late
    expected_delay: float  # minutes


DELAYS: Final = {"flights": sm.f4(default=0.0), "mean_delay": sm.f4(default=7.0), "late_share": sm.f4(default=0.24)}

route = sm.FeatureSet("route", key=("origin", "dest", "day"), ttl="36h", columns=DELAYS)
carrier = sm.FeatureSet("carrier", key=("carrier", "day"), ttl="36h", columns=DELAYS)
aircraft = sm.FeatureSet(
    "aircraft",
    key=("tailnum", "day"),
    ttl="36h",
    columns={**DELAYS, "seats": sm.f4(default=0.0), "year_built": sm.f4(default=0.0)},
)
weather = sm.FeatureSet(
    "weather",
    key=("origin", "hour"),
    ttl="3h",
    columns={
        "temp": sm.f4(default=55.0),  # °F
        "humid": sm.f4(default=60.0),  # %
        "wind_speed": sm.f4(default=10.0),  # mph
        "wind_gust": sm.f4(default=-1.0),  # mph
        "precip": sm.f4(default=0.0),  # inches
        "pressure": sm.f4(default=1018.0),  # mbar
        "visib": sm.f4(default=10.0),  # miles
    },
)
RECENT: Final = {"landings": sm.f4(default=0.0), "mean_delay": sm.f4(default=7.0), "late_share": sm.f4(default=0.24)}

# Written by whoever follows the arrivals. Without them a prediction is a little worse, and says so; none waits.
airport_recent = sm.FeatureSet(
    "airport_recent",
    key=("dest",),
    ttl="3h",
    kind="streaming",
    if_unavailable="default",
    max_default_ratio=1.0,
    columns=RECENT,
)
carrier_recent = sm.FeatureSet(
    "carrier_recent",
    key=("carrier",),
    ttl="3h",
    kind="streaming",
    if_unavailable="default",
    max_default_ratio=1.0,
    columns=RECENT,
)
RECENT_SETS: Final = (airport_recent, carrier_recent)
FEATURE_SETS: Final = (route, carrier, aircraft, weather, *RECENT_SETS)

_STORED: Final = tuple(name for one in FEATURE_SETS for name in one.outputs)
_EVENT: Final = ("scheduled_at", "departed_at", "distance")
INPUTS: Final = ("departure_delay", "distance", "hour_sin", "hour_cos", "weekday", *_STORED)


def model_inputs(columns: dict[str, Any]) -> dict[str, Any]:
    """The model's input, and the delay at departure in minutes. Training calls this very function."""
    delay = (columns["departed_at"] - columns["scheduled_at"]) / np.timedelta64(1, "m")
    local = local_time(columns["scheduled_at"])
    day = local.astype("datetime64[D]")
    angle = (local - day) / np.timedelta64(1, "D") * 2 * np.pi
    weekday = (day.astype(np.int64) + 3) % 7
    computed = (delay, columns["distance"], np.sin(angle), np.cos(angle), weekday)
    x = np.empty((len(delay), len(INPUTS)), np.float32)
    for place, column in enumerate((*computed, *(columns[name] for name in _STORED))):
        x[:, place] = column
    return {"x": x, "departure_delay": delay}


topology = sm.Topology(
    "flight-delay",
    source=sm.Source("departures", schema=Departure, start="earliest", event_time="departed_at"),
    steps=[
        sm.FeatureLookup(*FEATURE_SETS),
        sm.Transform(
            model_inputs,
            inputs=(*_EVENT, *_STORED),
            outputs={"x": f"f4[{len(INPUTS)}]", "departure_delay": "f8"},
        ),
        sm.Onnx(
            "flight-delay",
            outputs={"late_probability": sm.Output("probabilities", column=1), "expected_delay": "delay"},
            batching=sm.Batching(max_batch_size=2048),
        ),
    ],
    sink=sm.Sink("arrival-predictions", schema=ArrivalPrediction, key="flight_id"),
    dead_letters=sm.DeadLetterQueue("departures.dlq", max_ratio=0.05, min_sample=1000),
    feature_log=sm.FeatureLog("departures.features"),
)
