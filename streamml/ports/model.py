"""The contract of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from streamml.batch.column import Array


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output: numpy type name or ``text``, and the shape of one row (``None`` = any length)."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(['rows', *('any' if size is None else str(size) for size in self.shape)])}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs by name, in the model file's order."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


class PartialAnswer(dict[str, Array]):
    """A model's answer of which some rows hold nothing: arrays by output name, and, by row, one sentence that says why."""

    def __init__(self, outputs: Mapping[str, Array], failed: Mapping[int, str]) -> None:
        super().__init__(outputs)
        self.failed = failed


class Model(Protocol):
    """A loaded version of a model. `run` is called from one thread at a time."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def signature(self) -> Signature: ...

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Score ``n`` ≥ 1 rows: arrays ``[n, *row shape]`` by input name to arrays ``[n, *row shape]`` by output name.

        A model that knows which rows it cannot score answers a `PartialAnswer`. Its sentences go into dead letters.

        Raises:
            ModelOutOfMemory: for these rows; fewer may fit.
            ModelBusy: it cannot take any now; a later try may work.
            ModelRejected: the model refuses these rows; fewer of them may pass. Its message goes into dead letters, so
                it quotes no value. Any other exception means the same, and only its type is told.
            ModelFault: the model itself is broken.
        """
        ...

    def close(self) -> None: ...
