"""A topology on a few events in this process: the same stages, no broker, no feature store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from streamml.batch.column import object_array, sealed
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import HEADERS, KEY, VALUE, MicroBatch, Origin
from streamml.batch.outcome import Kind, Outcomes
from streamml.clock import SystemClock
from streamml.compose.locate import Located
from streamml.compose.models import close_all, load_models
from streamml.compose.stages import build_stages, plan_of
from streamml.errors import ConfigError
from streamml.ports.feature_store import FeatureReply, FeatureRequest
from streamml.settings.settings import Settings
from streamml.stages.stage import Stage
from streamml.topology.features import FeatureSet
from streamml.topology.steps import FeatureLookup
from streamml.topology.topology import Topology

_MOST: Final = 1000


def read_sample(path: Path) -> dict[int, bytes]:
    """Events of a file by the number of their line, one JSON object each; at most 1,000, empty lines left out.

    Raises:
        ConfigError: there is no such file, or nothing in it.
    """
    try:
        lines = {number: line for number, line in enumerate(path.read_bytes().splitlines(), 1) if line.strip()}
    except OSError as error:
        raise ConfigError(
            f"The sample {path} cannot be read ({error.strerror}); name a file with one event a line."
        ) from error
    if not lines:
        raise ConfigError(f"The sample {path} is empty; write one event a line.")
    return dict(islice(lines.items(), _MOST))


def predict(located: Located[Topology], settings: Settings, events: Mapping[int, bytes]) -> list[dict[str, Any]]:
    """What becomes of each event, in order: ``prediction``, ``dead_letter`` or ``filtered``. Features have their defaults.

    Args:
        events: by the number that they are to be called by.

    Raises:
        ConfigError: the topology or its models are wrong.
    """
    topology = _on_defaults(located.found)
    models = load_models(located.found, settings.model.repository or located.repository, settings.model)
    try:
        stages = build_stages(topology, models, _NothingStored(), ["sample/0/"])
        most = [stage.max_rows for stage in plan_of(topology, models).stages]
        ended = _outcomes(_batch(events), stages, most)
    finally:
        close_all(models)
    return sorted((row for piece in ended for row in _rows(piece)), key=lambda row: (row["event"], row.get("child", 0)))


def _outcomes(batch: MicroBatch, stages: Sequence[Stage], most: Sequence[int]) -> list[Outcomes]:
    """Pass all rows through the stages, in batches of as many rows as each stage takes."""
    now = SystemClock().now()
    ended: list[Outcomes] = []
    for stage, size in zip(stages, most, strict=True):
        starts = range(0, len(batch), size)
        results = [stage.run(batch.take(slice(start, start + size)), now) for start in starts]
        ended += (piece for result in results for piece in result.outcomes)
        going = [result.batch for result in results if len(result.batch)]
        if not going:
            break
        batch = MicroBatch.join(going)
    return ended


def _on_defaults(topology: Topology) -> Topology:
    """The topology, its features missing on purpose: as many defaults as there are rows, and no policy against them."""
    steps = tuple(
        FeatureLookup(*map(_defaulted, step.sets)) if isinstance(step, FeatureLookup) else step
        for step in topology.steps
    )
    return replace(topology, steps=steps)


def _defaulted(declared: FeatureSet) -> FeatureSet:
    whole = all(kind.default is not None for kind in declared.columns.values())
    # Where no default was declared, none is made up: the rows say that they have no features.
    return replace(declared, if_missing="default" if whole else "dead_letter", max_default_ratio=1.0)


class _NothingStored:
    """A feature store that has no value for anybody, so that defaults hold."""

    def lookup(self, requests: Sequence[FeatureRequest]) -> list[FeatureReply]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: FeatureRequest) -> FeatureReply:
        rows = len(request.entities)
        columns = {name: sealed(np.zeros((rows, *kind.shape), kind.dtype)) for name, kind in request.schema.columns}
        return FeatureReply("none", np.zeros(rows, bool), np.zeros(rows, np.int64), columns)

    def ping(self) -> None: ...

    def close(self) -> None: ...


def _batch(events: Mapping[int, bytes]) -> MicroBatch:
    rows = len(events)
    place = np.arange(rows, dtype=np.int64)
    number = np.fromiter(events, np.int64, rows)
    zeros = np.zeros(rows, np.int64)
    now_ms = np.full(rows, int(SystemClock().now() * 1000), np.int64)
    nothing: list[Any] = [None] * rows
    columns = {
        VALUE: object_array(events.values(), rows),
        KEY: object_array(nothing, rows),
        HEADERS: object_array([[]] * rows, rows),
    }
    return MicroBatch(Origin(zeros, place, number, now_ms, zeros), columns)


def _rows(piece: Outcomes) -> Iterator[dict[str, Any]]:
    for index in range(len(piece)):
        row: dict[str, Any] = {"event": int(piece.origin.offset[index])}
        child = piece.origin.child_at(index)
        if child is not None:
            row["child"] = child
        if piece.kind is Kind.FILTERED:
            row["filtered"] = True
        elif piece.kind is Kind.DEAD_LETTER:
            assert piece.values is not None
            failure = piece.values[index]
            row["dead_letter"] = {"step": failure.step, "error": failure.error, "message": failure.message}
            if failure.detail:
                row["dead_letter"]["detail"] = failure.detail
        else:
            assert piece.values is not None
            value = piece.values[index]
            row["prediction"] = None if value is None else json.loads(value)
            row["flags"] = FLAGS.text(int(piece.origin.flags[index]))
        yield row
