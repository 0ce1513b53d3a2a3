"""A model that only ever sees a few shapes: batches are padded to the next of them.

What compiles, captures or tunes itself for a shape (`torch.compile`, CUDA graphs, TensorRT, XLA) does so anew for each number
of rows; with a ladder of them it does so before the worker joins, and never again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from streamml.adapters.models.tensors import NUMPY
from streamml.batch.column import Array
from streamml.errors import ModelFault, ModelRejected
from streamml.ports.model import Model, PartialAnswer


class PaddedModel:
    """The port `Model` over another one. Rows that it adds repeat the last one of the batch, and never leave.

    An input of any length may be a column of objects, one array per row: then rows of similar length go together, each
    padded with zeros to the next of ``lengths``, and the answers come back in the order of the rows. A row that is longer
    than the last of them is refused.
    """

    def __init__(self, model: Model, rungs: Sequence[int], lengths: Sequence[int] = ()) -> None:
        """
        Args:
            rungs: numbers of rows, ascending; a larger batch is run in parts. Empty: batches are as they come.
            lengths: lengths of a row, ascending. Empty: rows are as long as the longest of their batch.
        """
        self._model = model
        self.name: Final = model.name
        self.version: Final = model.version
        self.signature: Final = model.signature
        self.rungs: Final = tuple(rungs)
        self.lengths: Final = tuple(lengths)
        self._most = self.rungs[-1] if rungs else None

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """See `Model.run`."""
        ragged = [name for name, column in inputs.items() if self._is_ragged(name, column)]
        if not ragged:
            return self._in_parts(inputs)
        lengths = np.max([_lengths(inputs[name]) for name in ragged], axis=0)
        answers: list[tuple[Array, Mapping[str, Array]]] = []
        for length, rows in self._groups(lengths):
            dense = {name: self._dense(name, column[rows], length, name in ragged) for name, column in inputs.items()}
            answers.append((rows, self._in_parts(dense)))
        return self._put_back(answers, lengths)

    def close(self) -> None:
        self._model.close()

    def _is_ragged(self, name: str, column: Array) -> bool:
        tensor = self.signature.inputs.get(name)
        if tensor is None or tensor.dtype == "text":
            return False
        return column.dtype == object and column.ndim == 1 and tensor.shape[:1] == (None,)

    def _groups(self, lengths: Array) -> Iterator[tuple[int, Array]]:
        """The rows of each length of the ladder, ascending."""
        if not self.lengths:
            yield max(1, int(lengths.max())), np.arange(len(lengths))
            return
        place = np.searchsorted(self.lengths, lengths)
        for number in np.unique(place):
            if number < len(self.lengths):
                yield self.lengths[number], np.flatnonzero(place == number)

    def _dense(self, name: str, column: Array, length: int, ragged: bool) -> Array:
        return _filled(column, length, NUMPY[self.signature.inputs[name].dtype]) if ragged else column

    def _in_parts(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        rows = len(next(iter(inputs.values())))
        if self._most is None or rows <= self._most:
            return self._padded(inputs, rows)
        starts = range(0, rows, self._most)
        parts = [
            self._padded(
                {name: column[start : start + self._most] for name, column in inputs.items()},
                min(self._most, rows - start),
            )
            for start in starts
        ]
        failed = {start + row: why for start, part in zip(starts, parts, strict=True) for row, why in _failed(part)}
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return PartialAnswer(whole, failed) if failed else whole

    def _padded(self, inputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
        size = next((rung for rung in self.rungs if rung >= rows), rows)
        if size == rows:
            return self._model.run(inputs)
        index = np.minimum(np.arange(size), rows - 1)
        answer = self._model.run({name: column[index] for name, column in inputs.items()})
        own = {name: column[:rows] for name, column in answer.items()}
        failed = {row: why for row, why in _failed(answer) if row < rows}
        return PartialAnswer(own, failed) if failed else own

    def _put_back(self, answers: list[tuple[Array, Mapping[str, Array]]], lengths: Array) -> Mapping[str, Array]:
        """One answer in the order of the rows."""
        label = f"{self.name}@{self.version}"
        if not answers:
            raise ModelRejected(f"Model {label} takes rows of at most {self.lengths[-1]} elements.")
        first = answers[0][1]
        if any(part[name].shape[1:] != first[name].shape[1:] for _, part in answers for name in first):
            raise ModelFault(
                f"Model {label} answers rows of other shapes for other lengths, which cannot be put together; answer what "
                "does not depend on the length, or give Batching one length."
            )
        whole = {name: np.zeros((len(lengths), *column.shape[1:]), column.dtype) for name, column in first.items()}
        failed: dict[int, str] = {}
        for rows, part in answers:
            for name, column in part.items():
                whole[name][rows] = column
            failed |= {int(rows[row]): why for row, why in _failed(part)}
        if self.lengths:
            why = f"The row has more than the {self.lengths[-1]} elements that model {label} takes."
            failed |= dict.fromkeys(np.flatnonzero(lengths > self.lengths[-1]).tolist(), why)
        return PartialAnswer(whole, failed) if failed else whole


def _failed(answer: Mapping[str, Array]) -> list[tuple[int, str]]:
    return list(answer.failed.items()) if isinstance(answer, PartialAnswer) else []


def _lengths(column: Array) -> Array:
    return np.fromiter(map(len, column), np.int64, len(column))


def _filled(column: Array, length: int, dtype: np.dtype[Any]) -> Array:
    """Arrays ``[any, ...]``, one per row, as one ``[n, length, ...]`` with zeros behind each."""
    values = np.concatenate(column.tolist())
    if not np.can_cast(values.dtype, dtype, "same_kind"):
        raise ModelRejected(f"Rows of {values.dtype} cannot be taken for {dtype}.")
    dense = np.zeros((len(column), length, *values.shape[1:]), dtype)
    dense[np.arange(length) < _lengths(column)[:, np.newaxis]] = values
    return dense
