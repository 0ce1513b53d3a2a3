"""A topology as stages: what runs between two queues, and which columns have to reach it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamml.ports.model import Signature
from streamml.topology.check import inputs_of, outputs_of
from streamml.topology.model_steps import ModelStep
from streamml.topology.steps import Explode, FeatureLookup, Step
from streamml.topology.topology import Topology

DEFAULT_ROWS = 4096


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Steps that run without a queue between them.

    Args:
        steps: in the order that rows pass them.
        max_rows: most rows of a batch.
        keep: columns that later stages read; the others are dropped when the stage ends.
    """

    steps: tuple[Step, ...]
    max_rows: int
    keep: frozenset[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """All stages, and the event columns that anything reads; the decoder makes no others."""

    stages: tuple[StagePlan, ...]
    decoded: frozenset[str]


def plan(topology: Topology, signatures: Mapping[str, Signature]) -> Plan:
    """Cut a topology without problems into stages.

    A stage ends after a lookup (so that waiting for the store overlaps with the model's work), after a model and after
    an explode (so that rows are put together anew), as long as a lookup or model follows. The first one ends before a model
    whose budget counts from the event's time, which is to be decoded when a batch is put together.
    """
    groups = _cut(topology.steps)
    needed = _read_at_the_end(topology)
    stages: list[StagePlan] = []
    for steps in reversed(groups):
        stages.insert(0, StagePlan(steps, _max_rows(steps), frozenset(needed)))
        for step in reversed(steps):
            signature = signatures.get(step.name)
            needed = (needed - outputs_of(step, signature).keys()) | inputs_of(step, signature)
    if topology.source.event_time is not None and _reads_event_time(topology):
        needed.add(topology.source.event_time)
        stages = [StagePlan(one.steps, one.max_rows, one.keep | {topology.source.event_time}) for one in stages]
    return Plan(tuple(stages), frozenset(needed & topology.source.schema.model_fields.keys()))


def _cut(steps: tuple[Step, ...]) -> list[tuple[Step, ...]]:
    groups: list[list[Step]] = [[]]
    for index, step in enumerate(steps):
        if len(groups) == 1 and _needs_event_time(step):
            groups.append([])
        groups[-1].append(step)
        ends = isinstance(step, FeatureLookup | ModelStep | Explode)
        if ends and any(isinstance(later, FeatureLookup | ModelStep) for later in steps[index + 1 :]):
            groups.append([])
    return [tuple(group) for group in groups]


def _needs_event_time(step: Step) -> bool:
    """Whether its batches are put together by the time of events."""
    return isinstance(step, ModelStep) and step.batching.budget_from == "event" and bool(step.batching.latency_budget)


def _max_rows(steps: tuple[Step, ...]) -> int:
    return min([step.batching.max_batch_size for step in steps if isinstance(step, ModelStep)], default=DEFAULT_ROWS)


def _read_at_the_end(topology: Topology) -> set[str]:
    fields = set(topology.sink.schema.model_fields)
    if topology.feature_log is not None:
        fields |= topology.feature_columns.keys()
    return fields if topology.sink.key is None else fields | {topology.sink.key}


def _reads_event_time(topology: Topology) -> bool:
    return any(
        isinstance(step, FeatureLookup) or (isinstance(step, ModelStep) and step.batching.budget_from == "event")
        for step in topology.steps
    )
