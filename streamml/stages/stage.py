"""A stage: operators one after the other on one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from streamml.batch.microbatch import MicroBatch
from streamml.batch.outcome import Kind, Outcomes, dead_letters
from streamml.engine.events import StageResult, StepTiming


class Operator(Protocol):
    """One step. Rows that end leave as outcomes, the others go on; each row does exactly one of the two."""

    @property
    def name(self) -> str: ...

    @property
    def outside(self) -> bool:
        """Whether it mostly waits, or computes outside of Python's lock."""
        ...

    @property
    def too_large(self) -> int:
        """Calls so far that did not fit into memory and were made anew with fewer rows (promise M5)."""
        ...

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """Work on ``n`` ≥ 1 rows. ``now`` is in seconds since 1970.

        Raises:
            TransientError: nothing happened; the same batch may be given again.
            FatalError: the worker has to stop.
        """
        ...


class Around:
    """An operator around another one, whose name and nature it has."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self.name: Final = operator.name
        self.outside: Final = operator.outside

    @property
    def too_large(self) -> int:
        """See `Operator.too_large`."""
        return self._operator.too_large


class Stage:
    """Operators that run without a queue between them. Calls come from one thread at a time."""

    def __init__(
        self, operators: Sequence[Operator], keep: frozenset[str] | None = None, of_record: frozenset[str] = frozenset()
    ) -> None:
        """
        Args:
            keep: columns of the rows that go on to the next stage; ``None``: all of them.
            of_record: columns that hold what the records hold.
        """
        self._operators = tuple(operators)
        self._keep = keep
        self._of_record = of_record

    @property
    def name(self) -> str:
        """Names of its operators."""
        return "+".join(operator.name for operator in self._operators)

    def run(
        self, batch: MicroBatch, now: float, attempt: int = 1, takes: Callable[[str, int], float] | None = None
    ) -> StageResult:
        """Pass a batch through. Raises what the operators raise; then no outcome of this run counts.

        Args:
            now: when it begins, in seconds since 1970; an operator gets this and what those before it took.
            attempt: number of this try, from 1, for the dead letters of it.
            takes: seconds that an operator takes for a number of rows, by name, where time is virtual.
        """
        outcomes: list[Outcomes] = []
        timings: list[StepTiming] = []
        for operator in self._operators:
            rows, started = len(batch), time.perf_counter()
            if not rows:
                break
            batch, ended = operator.apply(batch, now)
            seconds = takes(operator.name, rows) if takes else time.perf_counter() - started
            now += seconds
            timings.append(StepTiming(operator.name, rows, seconds, operator.outside, operator.too_large))
            outcomes += filter(len, ended)
        if attempt > 1:
            outcomes = [_tried(piece, attempt) for piece in outcomes]
        batch = batch if self._keep is None else batch.only(self._keep)
        return StageResult(batch, outcomes, timings, batch.size_bytes(self._of_record))


def _tried(piece: Outcomes, attempt: int) -> Outcomes:
    """Dead letters with the number of the try that they come from; other rows as they are."""
    if piece.kind is not Kind.DEAD_LETTER or piece.values is None:
        return piece
    return dead_letters(piece.origin, [replace(failure, attempts=attempt) for failure in piece.values])
