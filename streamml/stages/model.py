"""The operator around a model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streamml.batch.column import Array
from streamml.batch.microbatch import MicroBatch
from streamml.batch.outcome import Failure, Outcomes, dead_letters
from streamml.errors import ModelOutOfMemory, ModelRejected
from streamml.ports.model import Model, PartialAnswer
from streamml.stages.fitting import FittingRows
from streamml.stages.isolate import isolate
from streamml.topology.model_steps import Output


class RunModel:
    """Scores rows. A batch on which the model raises is bisected; a row whose output is not finite is a dead letter.

    What did not fit into the model's memory is tried in halves, and later batches come in parts of a size that does.
    """

    outside = True

    def __init__(self, model: Model, inputs: Mapping[str, str], outputs: Mapping[str, Output]) -> None:
        """
        Args:
            model: loaded and warmed.
            inputs: column name by model input name, for all inputs.
            outputs: the model's output by column name.
        """
        self._model = model
        self._inputs = inputs
        self._outputs = outputs
        self._label = f"{model.name}@{model.version}"
        self._fitting = FittingRows()
        self.name = model.name

    @property
    def too_large(self) -> int:
        """See `Operator.too_large`."""
        return self._fitting.too_large

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        passed, failed = isolate(self._call, batch, self._explain, self._fitting)
        ended = [dead_letters(row.origin, [failure]) for row, failure in failed]
        parts: list[MicroBatch] = []
        for part, (columns, unscored) in passed:
            whole = part.with_columns(columns)
            if unscored:
                whole, refused = self._without(whole, unscored)
                ended.append(refused)
            parts.append(whole)
        if not parts:
            return batch.take(slice(0, 0)), ended
        scored = MicroBatch.join(parts)
        bad = self._not_finite(scored)
        if bad is not None:
            failure = Failure(self.name, "ModelRejected", "The model's answer is not finite.", self._label)
            ended.append(dead_letters(scored.origin.take(bad), [failure] * int(bad.sum())))
            scored = scored.take(~bad)
        return scored, ended

    def _call(self, batch: MicroBatch) -> tuple[dict[str, Array], Mapping[int, str]]:
        answer = self._model.run(
            {name: self._input(name, batch.columns[column]) for name, column in self._inputs.items()}
        )
        columns = {column: _pick(answer[output.tensor], output.column) for column, output in self._outputs.items()}
        return columns, answer.failed if isinstance(answer, PartialAnswer) else {}

    def _without(self, batch: MicroBatch, unscored: Mapping[int, str]) -> tuple[MicroBatch, Outcomes]:
        """The batch without the rows that the model gave up on, and these as dead letters."""
        bad = np.zeros(len(batch), np.bool_)
        bad[list(unscored)] = True
        failures = [Failure(self.name, "ModelRejected", unscored[row], self._label) for row in sorted(unscored)]
        return batch.take(~bad), dead_letters(batch.origin.take(bad), failures)

    def _input(self, name: str, column: Array) -> Array:
        """A column ``[n]`` as ``[n, 1]`` where the model wants that; one of an array per row stays as it is."""
        tensor = self._model.signature.inputs[name]
        wanted = 1 + len(tensor.shape)
        if column.dtype == object and tensor.dtype != "text":
            return column
        return column[:, np.newaxis] if column.ndim + 1 == wanted else column

    def _explain(self, error: Exception) -> Failure:
        if isinstance(error, ModelOutOfMemory):
            return Failure(
                self.name, "ModelOutOfMemory", "The model has not enough memory for this row alone.", self._label
            )
        # What other exceptions say may quote the row's values; those of the port do not.
        said = str(error) if isinstance(error, ModelRejected) else f"The model raised {type(error).__name__}."
        return Failure(self.name, "ModelRejected", said, self._label)

    def _not_finite(self, scored: MicroBatch) -> Array | None:
        """Rows with an output that is not finite; ``None`` where there are none."""
        columns = [scored.columns[name] for name in self._outputs]
        finite = [np.isfinite(column) for column in columns if column.dtype.kind == "f"]
        if all(one.all() for one in finite):
            return None
        bad: Array = ~np.logical_and.reduce([one.reshape(len(scored), -1).all(axis=1) for one in finite])
        return bad


def _pick(tensor: Array, column: int | None) -> Array:
    if column is not None:
        return np.ascontiguousarray(tensor[:, column])
    return tensor[:, 0] if tensor.ndim == 2 and tensor.shape[1] == 1 else tensor
