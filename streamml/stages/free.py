"""Steps for those who measure: one that costs nothing, and one that shows in a trace."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from streamml.batch.column import Array
from streamml.batch.microbatch import MicroBatch
from streamml.batch.outcome import Kind, Outcomes
from streamml.stages.stage import Around, Operator


@dataclass(frozen=True, slots=True)
class Answer:
    """What ``rows`` rows got: columns where they went on, the outcome where all of them ended as predictions."""

    rows: int
    columns: dict[str, Array]
    outcome: Outcomes | None


class Learning(Around):
    """Runs an operator, and keeps its answer to the largest batch of which no row was lost."""

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        self.answer: Answer | None = None

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        after, ended = self._operator.apply(batch, now)
        rows = len(batch)
        if self.answer is not None and self.answer.rows >= rows:
            return after, ended
        if len(after) == rows and not ended:
            made = {name: column for name, column in after.columns.items() if column is not batch.columns.get(name)}
            self.answer = Answer(rows, made, None)
        elif len(ended) == 1 and ended[0].kind is Kind.PREDICTION and len(ended[0]) == rows:
            self.answer = Answer(rows, {}, ended[0])
        return after, ended


class Free:
    """Gives every batch the columns, or the ends, that an operator has given once; they are repeated where it is larger."""

    outside = False
    too_large = 0

    def __init__(self, name: str, answer: Answer) -> None:
        self.name = name
        self._answer = answer

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        rows, known = len(batch), self._answer
        index = slice(0, rows) if rows <= known.rows else np.arange(rows) % known.rows
        if known.outcome is None:
            return batch.with_columns({name: column[index] for name, column in known.columns.items()}), []
        made = known.outcome.take(index)
        outcome = Outcomes(made.kind, batch.origin, made.values, made.keys, made.headers, made.model)
        return batch.take(slice(0, 0)), [outcome]


class Ranged(Around):
    """Runs an operator inside a range of its name, for those who look at a trace."""

    def __init__(self, operator: Operator, ranges: Callable[[str], AbstractContextManager[object]]) -> None:
        super().__init__(operator)
        self._ranges = ranges

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        with self._ranges(self.name):
            return self._operator.apply(batch, now)
