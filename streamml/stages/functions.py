"""Operators around the user's functions: transform, filter, explode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from streamml.batch.column import Array, ColumnType, conform, problem_with
from streamml.batch.microbatch import Mask, MicroBatch, Origin
from streamml.batch.outcome import Failure, Kind, Outcomes, dead_letters
from streamml.engine.feature_log import LogSchema
from streamml.errors import FatalError, StepFailed, place_of
from streamml.stages.isolate import isolate
from streamml.topology.steps import FAILURES, PARENT, Explode, Filter, RowFailures, Transform

_MOST_DETAIL: Final = 500


def _inputs(batch: MicroBatch, names: tuple[str, ...]) -> dict[str, Array]:
    return {name: batch.columns[name] for name in names}


def _explain(step: str, error: Exception) -> Failure:
    if isinstance(error, StepFailed):
        return Failure(step, "StepFailed", str(error))
    told = f"{type(error).__name__}: {error}"[:_MOST_DETAIL]
    detail = f"{told} ({place})" if (place := place_of(error)) else told
    return Failure(step, "StepFailed", f"{step} raised {type(error).__name__}.", detail=detail)


def _nulls(column: Array) -> Mask:
    mask = np.ma.getmaskarray(column)
    return np.asarray(mask.any(axis=tuple(range(1, mask.ndim))), np.bool_)


def _checked(step: str, answer: Mapping[str, Any], outputs: Mapping[str, ColumnType], rows: int) -> dict[str, Array]:
    columns: dict[str, Array] = {}
    for name, declared in outputs.items():
        if name not in answer:
            raise FatalError(f"Step {step} declares the output {name!r} and does not return it.")
        problem = problem_with(answer[name], declared, rows)
        if problem:
            raise FatalError(f"Step {step} declares {name!r} as {declared}, but what it returns {problem}.")
        columns[name] = conform(answer[name], declared)
    return columns


def dropped(batch: MicroBatch, gone: Mask, logged: LogSchema | None) -> Outcomes:
    """Rows that are dropped on purpose.

    Args:
        logged: what of them goes into the feature log, as a replay with the features of then will drop them, too; ``None``: nothing.
    """
    origin = batch.origin.take(gone)
    if logged is None or not len(origin) or not (logged.columns.keys() & batch.columns.keys()):
        return Outcomes(Kind.FILTERED, origin)
    columns = {name: batch.columns[name][gone] for name in logged.columns.keys() & batch.columns.keys()}
    return Outcomes(Kind.FILTERED, origin, features=logged.pack(columns, len(origin)))


class ApplyTransform:
    """Runs a `Transform`."""

    outside = False
    too_large = 0

    def __init__(self, step: Transform) -> None:
        self._step = step
        self.name = step.name

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        passed, failed = isolate(self._call, batch, lambda error: _explain(self.name, error))
        ended = [dead_letters(row.origin, [failure]) for row, failure in failed]
        parts: list[MicroBatch] = []
        for part, (columns, bad, reason) in passed:
            whole = part.with_columns(columns)
            if bad.any():
                failure = Failure(self.name, "StepFailed", reason)
                ended.append(dead_letters(part.origin.take(bad), [failure] * int(bad.sum())))
                whole = whole.take(~bad)
            parts.append(whole)
        return MicroBatch.join(parts) if parts else batch.take(slice(0, 0)), ended

    def _call(self, batch: MicroBatch) -> tuple[dict[str, Array], Mask, str]:
        answer = dict(self._step.function(_inputs(batch, self._step.inputs)))
        given_up = answer.pop(FAILURES, None)
        columns = _checked(self.name, answer, self._step.outputs, len(batch))
        bad, reason = np.zeros(len(batch), bool), ""
        if isinstance(given_up, RowFailures):
            if given_up.mask.shape != (len(batch),):
                raise FatalError(f"Step {self.name} gave sm.failures a mask that has not one value per row.")
            bad, reason = given_up.mask, given_up.reason
        for name, declared in self._step.outputs.items():
            if isinstance(columns[name], np.ma.MaskedArray) and not declared.nullable:
                null = _nulls(columns[name]) & ~bad
                if null.any():
                    bad, reason = bad | null, reason or f"{name} has no value, and is not declared nullable."
                columns[name] = np.asarray(columns[name])
        return columns, bad, reason


class ApplyFilter:
    """Runs a `Filter`."""

    outside = False
    too_large = 0

    def __init__(self, step: Filter, logged: LogSchema | None = None) -> None:
        """
        Args:
            logged: see `dropped`.
        """
        self._step = step
        self._logged = logged
        self.name = step.name

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        passed, failed = isolate(self._call, batch, lambda error: _explain(self.name, error))
        ended = [dead_letters(row.origin, [failure]) for row, failure in failed]
        ended += [dropped(part, ~keep, self._logged) for part, keep in passed]
        parts = [part.take(keep) for part, keep in passed]
        return MicroBatch.join(parts) if parts else batch.take(slice(0, 0)), ended

    def _call(self, batch: MicroBatch) -> Mask:
        keep = self._step.function(_inputs(batch, self._step.inputs))
        if not isinstance(keep, np.ndarray) or keep.dtype != bool or keep.shape != (len(batch),):
            raise FatalError(f"Filter {self.name} has to return one bool per row, as a numpy array.")
        return keep


class ApplyExplode:
    """Runs an `Explode`."""

    outside = False
    too_large = 0

    def __init__(self, step: Explode, logged: LogSchema | None = None) -> None:
        """
        Args:
            logged: see `dropped`.
        """
        self._step = step
        self._logged = logged
        self.name = step.name

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        passed, failed = isolate(self._call, batch, lambda error: _explain(self.name, error))
        ended = [dead_letters(row.origin, [failure]) for row, failure in failed]
        parts: list[MicroBatch] = []
        for part, (columns, parent) in passed:
            children = np.bincount(parent, minlength=len(part))
            ended.append(dropped(part, children == 0, self._logged))
            exploded = part.take(parent)
            parts.append(MicroBatch(_children(exploded.origin, parent, children), {**exploded.columns, **columns}))
        return MicroBatch.join(parts) if parts else batch.take(slice(0, 0)), ended

    def _call(self, batch: MicroBatch) -> tuple[dict[str, Array], Array]:
        answer = dict(self._step.function(_inputs(batch, self._step.inputs)))
        parent = np.asarray(answer.pop(PARENT, None))
        wrong = parent.ndim != 1 or parent.dtype.kind not in "iu"
        if wrong or (len(parent) and (parent.min() < 0 or parent.max() >= len(batch) or (np.diff(parent) < 0).any())):
            raise FatalError(f"Explode {self.name} has to return sm.PARENT: ascending indices of its input rows.")
        return _checked(self.name, answer, self._step.outputs, len(parent)), parent


def _children(origin: Origin, parent: Array, counts: Array) -> Origin:
    first = np.cumsum(counts) - counts
    child = np.arange(len(parent), dtype=np.int64) - first[parent]
    last = child == counts[parent] - 1
    return Origin(origin.slot, origin.ordinal, origin.offset, origin.timestamp, origin.flags, child, last)
