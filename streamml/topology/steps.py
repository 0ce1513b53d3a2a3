"""The steps of a topology. Each one declares its output columns, so that the whole can be checked before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from streamml.batch.column import ColumnType
from streamml.topology.features import FeatureSet

ColumnFunction = Callable[[dict[str, Any]], Mapping[str, Any]]
MaskFunction = Callable[[dict[str, Any]], npt.NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class RowFailures:
    """Rows that a step's function gives up on; made by `failures`."""

    mask: npt.NDArray[np.bool_]
    reason: str


FAILURES = "sm.failures"


def failures(mask: npt.NDArray[np.bool_], reason: str) -> dict[str, RowFailures]:
    """Fail the rows where ``mask`` is true: merge it into what a step's function returns.

    ``return {"x": x, **sm.failures(distance < 0, "The distance is negative.")}``

    Args:
        mask: bool ``[n]``, one per input row.
        reason: one sentence; it goes into the dead letters, so it must hold no secret.
    """
    return {FAILURES: RowFailures(np.asarray(mask, np.bool_), reason)}


def _types(columns: Mapping[str, str | ColumnType]) -> dict[str, ColumnType]:
    return {name: ColumnType.parse(declared) for name, declared in columns.items()}


@dataclass(frozen=True)
class Batching:
    """How rows are put together for a model.

    Args:
        max_batch_size: most rows in one batch.
        latency_budget: time from ``budget_from`` in which a prediction is wanted, as ``"50ms"``. Batches are as large as it
            and the measured cost of a batch allow; a later prediction is flagged ``late``. ``None``: no budget.
        budget_from: whether the budget counts from the record's timestamp or from the event's time.
        on_late: what happens to a row that cannot make it: ``"score"`` it in its turn; ``"last"``, score it when no other
            row waits, which needs ``Sink(order="none")``; or write a ``"dead_letter"`` with the error ``DeadlineExceeded``.
    """

    max_batch_size: int = 4096
    latency_budget: str | None = None
    budget_from: Literal["record", "event"] = "record"
    on_late: Literal["score", "last", "dead_letter"] = "score"


@dataclass(frozen=True, init=False)
class FeatureLookup:
    """Join stored features: one round trip for all sets. Adds the columns ``<set>.<column>``."""

    sets: tuple[FeatureSet, ...]

    def __init__(self, *sets: FeatureSet) -> None:
        object.__setattr__(self, "sets", sets)

    @property
    def name(self) -> str:
        return f"lookup({','.join(feature_set.name for feature_set in self.sets)})"


@dataclass(frozen=True, init=False)
class Transform:
    """Compute columns from columns with a pure function.

    Args:
        function: gets a dict of read-only numpy arrays ``[n, ...]`` (nullable ones as masked arrays) and returns a dict of
            arrays with the same number of rows, in the same order; `failures` may be merged in. It may be called
            again with fewer rows: when it raises, its batch is bisected until the failing rows are found.
        inputs: names of the columns it gets.
        outputs: names and types of the columns it returns.
    """

    function: ColumnFunction
    inputs: tuple[str, ...]
    outputs: Mapping[str, ColumnType]
    name: str

    def __init__(
        self,
        function: ColumnFunction,
        *,
        inputs: tuple[str, ...],
        outputs: Mapping[str, str | ColumnType],
        name: str | None = None,
    ) -> None:
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "inputs", tuple(inputs))
        object.__setattr__(self, "outputs", _types(outputs))
        object.__setattr__(self, "name", name or function.__name__)


@dataclass(frozen=True, init=False)
class Filter:
    """Drop rows on purpose: keeps those where ``function`` answers true. Dropped rows are settled and counted.

    Args:
        function: gets the input columns as `Transform` does; returns bool ``[n]``.
        inputs: names of the columns it gets.
    """

    function: MaskFunction
    inputs: tuple[str, ...]
    name: str

    def __init__(self, function: MaskFunction, *, inputs: tuple[str, ...], name: str | None = None) -> None:
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "inputs", tuple(inputs))
        object.__setattr__(self, "name", name or function.__name__)


PARENT = "sm.parent"


@dataclass(frozen=True, init=False)
class Explode:
    """Make any number of rows out of each row: detections of an image, sentences of a text.

    Args:
        function: gets the input columns as `Transform` does; returns the output columns with ``m`` rows, and under
            ``sm.PARENT`` an integer array ``[m]``, ascending: the index of the input row that each came from. A row without
            children is dropped on purpose.
        inputs: names of the columns it gets.
        outputs: names and types of the columns it returns; the parent's columns stay beside them.
    """

    function: ColumnFunction
    inputs: tuple[str, ...]
    outputs: Mapping[str, ColumnType]
    name: str

    def __init__(
        self,
        function: ColumnFunction,
        *,
        inputs: tuple[str, ...],
        outputs: Mapping[str, str | ColumnType],
        name: str | None = None,
    ) -> None:
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "inputs", tuple(inputs))
        object.__setattr__(self, "outputs", _types(outputs))
        object.__setattr__(self, "name", name or function.__name__)


@dataclass(frozen=True, slots=True)
class Output:
    """Which of a model's outputs becomes a column.

    Args:
        tensor: the output's name in the model file.
        column: index into the second axis, for an output ``[n, k]`` of which one column is wanted; ``None``: all of it. An
            output ``[n, 1]`` is taken as ``[n]``.
    """

    tensor: str
    column: int | None = None


@dataclass(frozen=True, init=False)
class Onnx:
    """Score rows with an ONNX model of the model repository.

    Args:
        name: folder in the repository, ``models/<name>/<version>/model.onnx``.
        version: pin a version; ``None`` takes the highest.
        inputs: model input name to column name, where they differ. Inputs that are not named here are fed by the column
            of the same name.
        outputs: column name to the model's output. A row whose value is not finite becomes a dead letter.
        batching: how rows are put together.
    """

    name: str
    version: str | None
    inputs: Mapping[str, str]
    outputs: Mapping[str, Output]
    batching: Batching

    def __init__(
        self,
        name: str,
        *,
        outputs: Mapping[str, str | Output],
        inputs: Mapping[str, str] | None = None,
        version: str | None = None,
        batching: Batching | None = None,
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "inputs", dict(inputs or {}))
        object.__setattr__(self, "outputs", {c: o if isinstance(o, Output) else Output(o) for c, o in outputs.items()})
        object.__setattr__(self, "batching", batching or Batching())


Step = FeatureLookup | Transform | Filter | Explode | Onnx
