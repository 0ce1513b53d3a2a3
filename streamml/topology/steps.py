"""The steps of a topology. Each one declares its output columns, so that the whole can be checked before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streamml.batch.column import ColumnType, column_types
from streamml.topology.features import FeatureSet
from streamml.topology.model_steps import ModelStep

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
class _MakesColumns:
    """What steps have in common whose function makes columns."""

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
        object.__setattr__(self, "outputs", column_types(outputs))
        object.__setattr__(self, "name", name or function.__name__)


@dataclass(frozen=True, init=False)
class Transform(_MakesColumns):
    """Compute columns from columns with a pure function.

    Args:
        function: gets a dict of read-only numpy arrays ``[n, ...]`` (nullable ones as masked arrays) and returns a dict of
            arrays with the same number of rows, in the same order; `failures` may be merged in. It may be called
            again with fewer rows: when it raises, its batch is bisected until the failing rows are found.
        inputs: names of the columns it gets.
        outputs: names and types of the columns it returns.
    """


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
class Explode(_MakesColumns):
    """Make any number of rows out of each row: detections of an image, sentences of a text.

    Args:
        function: gets the input columns as `Transform` does; returns the output columns with ``m`` rows, and under
            ``sm.PARENT`` an integer array ``[m]``, ascending: the index of the input row that each came from. A row without
            children is dropped on purpose.
        inputs: names of the columns it gets.
        outputs: names and types of the columns it returns; the parent's columns stay beside them.
    """


Step = FeatureLookup | Transform | Filter | Explode | ModelStep
