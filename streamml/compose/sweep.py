"""What batches of a model take, measured before the worker joins its group."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from streamml.compose.models import rungs_of
from streamml.engine.cost import ladder
from streamml.errors import StreamMLError
from streamml.ports.model import Model
from streamml.topology.model_steps import ModelStep, Python
from streamml.topology.topology import Topology

_LOG: Final = logging.getLogger("streamml.models")

Costs = Mapping[str, Mapping[int, float]]
"""Seconds of a batch by rows, by name of the model."""


def sweep(topology: Topology, models: Mapping[str, Model]) -> dict[str, dict[int, float]]:
    """Run each model that has a latency budget at every size of its ladder; each size is warm then, too.

    A model that refuses made-up rows is left out: what it costs is learned from its first batches.
    """
    from streamml.adapters.models.warm_up import warm_up

    costs: dict[str, dict[int, float]] = {}
    for step in topology.steps:
        # Each call of somebody's API has its price, and would be taken off what its cost_cap leaves for records.
        if isinstance(step, Python) and (not step.warm_up or step.calls.cost):
            continue
        if isinstance(step, ModelStep) and step.batching.latency_budget is not None:
            try:
                sizes = rungs_of(models[step.name]) or ladder(step.batching.max_batch_size)
                longest = max(step.batching.lengths, default=1)
                costs[step.name] = warm_up(models[step.name], sizes, repeats=3, length=longest)
            except StreamMLError as error:
                _LOG.info("What a batch of %s takes is not known before the first ones: %s", step.name, error)
    return costs
