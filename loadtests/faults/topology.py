"""The baseline's job as it is put under faults: the same steps, and an input function that can be made to raise, answer NaN,
run out of memory, or hang."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

import streamml as sm
from loadtests.baseline import topology as baseline
from loadtests.baseline.topology import FIELDS, STORED, Event

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


def troubled_inputs(columns: dict[str, Any]) -> dict[str, Any]:
    """The model's inputs, with trouble on request."""
    while HANG_FILE in os.environ and Path(os.environ[HANG_FILE]).exists():
        time.sleep(0.02)
    if (columns["merchant"] == RAISES).any():
        raise ArithmeticError("This merchant cannot be computed with.")
    if (columns["merchant"] == TOO_LARGE).any():
        np.empty(1 << 60, np.uint8)
    x = baseline.model_inputs(columns)["x"]
    x[columns["merchant"] == NOT_A_NUMBER] = np.nan
    return {"x": x}


topology = sm.Topology(
    "chaos",
    source=sm.Source("chaos.events", schema=Event, start="earliest"),
    steps=[
        # Under faults any share of the stored values may be spoilt; the run is to go on with defaults, not to wait.
        sm.FeatureLookup(
            sm.FeatureSet("account", key="account", columns=baseline.account.columns, max_default_ratio=1.0)
        ),
        sm.Transform(troubled_inputs, inputs=(*FIELDS, *STORED), outputs={"x": "f4[22]"}),
        baseline.topology.steps[2],
    ],
    sink=baseline.topology.sink.into(PREDICTIONS),
    # Every kind of poison is one record in a hundred, and there are a dozen kinds.
    dead_letters=sm.DeadLetterQueue("chaos.dlq", max_ratio=0.5),
)
