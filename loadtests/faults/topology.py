"""The baseline's job of two feature sets as it is put under faults: the same steps, and an input function that can be made to raise, answer NaN,
run out of memory, or hang."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel

import streamml as sm
from loadtests.baseline import topology as baseline
from loadtests.baseline.topology import FIELDS, RECENT, STORED_IN_TWO, Event

PREDICTIONS: Final = "chaos.predictions"
RAISES: Final = -1
"""The merchant of an event on which the job's function raises."""
NOT_A_NUMBER: Final = -2
"""The merchant of an event for which the model answers NaN."""
TOO_LARGE: Final = -3
"""The merchant of an event that needs more memory than there is."""
HANG_FILE: Final = "CHAOS_HANG_FILE"
"""Names the file that makes the function hang as long as it is there."""
CLOCK_FILE: Final = "CHAOS_CLOCK_FILE"
"""Names the file that says by how many seconds the workers' clocks are wrong."""
FAST_TTL_S: Final = 12
"""Age in seconds from which a fast value is stale; the writer comes to each account twice as often."""

# Under faults any share of the stored values may be spoilt, or not be written; the run is to go on with defaults, not to wait.
account = sm.FeatureSet("account", key="account", columns=baseline.account.columns, max_default_ratio=1.0)
recent = sm.FeatureSet(
    "recent",
    key="account",
    kind="streaming",
    ttl=f"{FAST_TTL_S}s",
    columns={"tick": sm.i8(default=0), **{name: sm.f4(default=0.0) for name in RECENT}},
    max_default_ratio=1.0,
)


class Scored(BaseModel):
    """The event's id, its score, and the event time (µs) of the fast value that is in it; 0 with the defaults."""

    event_id: str
    score: float
    tick: int


def troubled_inputs(columns: dict[str, Any]) -> dict[str, Any]:
    """The model's inputs, with trouble on request."""
    while HANG_FILE in os.environ and Path(os.environ[HANG_FILE]).exists():
        time.sleep(0.02)
    if (columns["merchant"] == RAISES).any():
        raise ArithmeticError("This merchant cannot be computed with.")
    if (columns["merchant"] == TOO_LARGE).any():
        np.empty(1 << 60, np.uint8)
    x = baseline.model_inputs_of_two(columns)["x"]
    x[columns["merchant"] == NOT_A_NUMBER] = np.nan
    return {"x": x, "tick": columns["recent.tick"]}


topology = sm.Topology(
    "chaos",
    source=sm.Source("chaos.events", schema=Event, start="earliest"),
    steps=[
        sm.FeatureLookup(account, recent),
        sm.Transform(
            troubled_inputs, inputs=(*FIELDS, *STORED_IN_TWO, "recent.tick"), outputs={"x": "f4[22]", "tick": "i8"}
        ),
        baseline.topology.steps[2],
    ],
    sink=sm.Sink(PREDICTIONS, schema=Scored, key="event_id"),
    # Every kind of poison is one record in a hundred, and there are a dozen kinds.
    dead_letters=sm.DeadLetterQueue("chaos.dlq", max_ratio=0.5),
)
