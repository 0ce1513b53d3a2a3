"""The job on topics and for a group that the environment names, for ``streamml run``."""

from __future__ import annotations

import os

import streamml as sm
from loadtests.baseline import topology as baseline

topology = sm.Topology(
    os.environ.get("SCALED_GROUP", "scaled"),
    source=sm.Source(os.environ.get("SCALED_IN", "baseline.events"), schema=baseline.Event, start="earliest"),
    steps=baseline.topology.steps,
    sink=baseline.topology.sink.into(os.environ.get("SCALED_OUT", "baseline.predictions")),
    dead_letters=baseline.topology.dead_letters,
)
