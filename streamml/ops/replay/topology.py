"""A topology as a replay runs it: other versions, other topics, no budgets, no feature log, and only the events that are meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from streamml.batch.column import Array
from streamml.errors import ConfigError
from streamml.ops.replay.condition import condition
from streamml.ops.replay.features import recorded_sets
from streamml.ops.replay.replay import Replay
from streamml.schema.contract import Contract
from streamml.topology.model_steps import ModelStep, Python
from streamml.topology.steps import FeatureLookup, Filter, Step
from streamml.topology.topology import Source, Topology

_WITHIN: Final = "replay --by event"
_WHERE: Final = "replay --where"


def with_models(topology: Topology, versions: Mapping[str, str]) -> Topology:
    """The topology with these versions of its models, by name.

    Raises:
        ConfigError: it has no such model, or one whose version the topology itself decides.
    """
    known = {step.name: step for step in topology.steps if isinstance(step, ModelStep)}
    problems = [
        f"The topology has no model {name!r}; it has {', '.join(known) or 'none'}."
        for name in versions
        if name not in known
    ]
    problems += [
        f"{name} is a Python step, whose version is in the topology: {step.version}, and not {versions[name]}. Take a "
        "topology that says so."
        for name, step in known.items()
        if isinstance(step, Python) and versions.get(name, step.version) != step.version
    ]
    if problems:
        raise ConfigError(problems)
    return replace(topology, steps=tuple(_of_version(step, versions) for step in topology.steps))


def model_versions(topology: Topology, chosen: Sequence[str]) -> dict[str, str]:
    """Versions by model: each is ``name=version``, or a version of the last model.

    Raises:
        ConfigError: there is no model.
    """
    names = [step.name for step in topology.steps if isinstance(step, ModelStep)]
    if chosen and not names:
        raise ConfigError("The topology has no model, so --model has nothing to choose.")
    pairs = [one.partition("=") for one in chosen]
    return {(name if equals else names[-1]): (version if equals else name) for name, equals, version in pairs}


def replayed(topology: Topology, replay: Replay) -> Topology:
    """The topology as this replay runs it (promise M2); latest predictions are not touched.

    A record without a value is dropped where the replay is not of all events, as no condition is true of it.

    Raises:
        ConfigError: the topology has no such model or column any more.
    """
    filters = _filters(topology.source, replay)
    versioned = lookups_apart(with_models(topology, replay.models), recorded_sets(topology, replay.features))
    source = topology.source
    if filters and source.on_tombstone == "forward":
        source = replace(source, on_tombstone="drop")
    return replace(
        topology,
        source=source,
        steps=(*filters, *without_budgets(versioned).steps),
        sink=topology.sink.into(replay.into),
        dead_letters=replace(topology.dead_letters, topic=replay.letters, max_ratio=replay.max_ratio),
        feature_log=None,
        latest=None,
    )


def lookups_apart(topology: Topology, names: frozenset[str]) -> Topology:
    """The topology with the sets of these names in lookups of their own, behind those of the other sets."""
    steps: list[Step] = []
    for step in topology.steps:
        if isinstance(step, FeatureLookup):
            halves = [[one for one in step.sets if (one.name in names) is chosen] for chosen in (False, True)]
            steps += [FeatureLookup(*half) for half in halves if half]
        else:
            steps.append(step)
    return replace(topology, steps=tuple(steps))


def without_budgets(topology: Topology) -> Topology:
    """The topology with nothing that would count how old a record is (promise M2)."""
    return replace(topology, steps=tuple(map(_without_budget, topology.steps)))


def _filters(source: Source, replay: Replay) -> list[Step]:
    found: list[Step] = []
    if replay.within_us is not None:
        assert source.event_time is not None
        found.append(_within(source.event_time, *replay.within_us))
    if replay.where is not None:
        read = condition(replay.where, Contract.of(source.schema).columns)
        found.append(Filter(read.function, inputs=read.columns, name=_WHERE))
    return found


def _within(event_time: str, first_us: int, end_us: int) -> Filter:
    first, end = np.datetime64(first_us, "us"), np.datetime64(end_us, "us")

    def function(columns: dict[str, Any]) -> Array:
        time = columns[event_time]
        return np.asarray(np.ma.filled((time >= first) & (time < end), False), bool)

    return Filter(function, inputs=(event_time,), name=_WITHIN)


def _of_version(step: Step, versions: Mapping[str, str]) -> Step:
    if isinstance(step, ModelStep) and not isinstance(step, Python) and step.name in versions:
        return replace(step, version=versions[step.name])
    return step


def _without_budget(step: Step) -> Step:
    if isinstance(step, ModelStep) and step.batching.latency_budget is not None:
        return replace(step, batching=replace(step.batching, latency_budget=None, on_late="score"))
    return step
