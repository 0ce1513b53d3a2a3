"""What consumers see in the end, and what they would have seen without the incident."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamml.adapters.kafka.tail import read_topic
from streamml.compose.locate import Located
from streamml.ops.export.read import read_export
from streamml.ops.referee import provenance_of
from streamml.ops.run import RunOptions, StopSignal, run
from streamml.ops.topics import create_topics
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology
from topologies.flight_delay.topology import topology

PARTITIONS = 4
# Sums of float32 come out in another order in batches of another size.
TOLERANCE = 1e-5
Predictions = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Exported:
    """The corrected stretch as a training job finds it.

    Args:
        rows: one for each prediction.
        corrected: rows whose prediction has the revision of the replay.
        with_features: rows that have the features of the live run beside it.
        with_zeros: of these, rows whose weather was all zeros: what the model saw in the incident.
    """

    rows: int
    corrected: int
    with_features: int
    with_zeros: int


def exported(folder: Path, replay: int) -> Exported:
    """Count the rows of an export.

    Args:
        replay: the number that corrections have for their revision.
    """
    rows = corrected = with_features = with_zeros = 0
    for some in read_export(folder, topology):
        rows += len(some)
        corrected += some.table.column("revision").to_pylist().count(replay)
        with_features += int(some.scored.sum())
        # No hour of 2013 has no air.
        with_zeros += int((some.columns["weather.pressure"][some.scored] == 0).sum())
    return Exported(rows, corrected, with_features, with_zeros)


def without_incident(settings: Settings) -> Predictions:
    """Predictions by id of a group of its own that scores the whole topic with the features of now."""
    other = replace(topology, name="rehearsal-reference", sink=topology.sink.into("rehearsal-reference"))
    create_topics(other, settings, PARTITIONS, -1)
    located = Located(other, Path(__file__).parents[2] / "topologies" / "flight_delay")
    run(
        located,
        settings.model_copy(update={"group": None}),
        RunOptions(until_caught_up=True, patience_s=60.0),
        StopSignal(),
    )
    return of_highest_revision(settings, other)


def of_highest_revision(settings: Settings, job: Topology = topology) -> Predictions:
    """Predictions by id, as a consumer has them that takes the highest revision of each."""
    latest: dict[str, tuple[int, Mapping[str, Any]]] = {}
    assert job.sink.topic is not None
    for one in read_topic(settings.client(), job.sink.topic):
        made = provenance_of([(name, value or b"") for name, value in one.record.headers])
        if made.id not in latest or made.revision >= latest[made.id][0]:
            latest[made.id] = (made.revision, json.loads(one.record.value or b"{}"))
    return {id: value for id, (_, value) in latest.items()}


def different_rows(some: Predictions, others: Predictions) -> list[str]:
    """Ids of which one side has no prediction, or another one."""
    return [id for id in some.keys() | others.keys() if not _same(some.get(id), others.get(id))]


def _same(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    if one is None or other is None or one.keys() != other.keys():
        return False
    return all(_alike(value, other[name]) for name, value in one.items())


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= TOLERANCE * max(1.0, abs(one))
    return bool(one == other)
