"""Find the rows that make a batch fail (promise E2), and the number of rows that fit (M5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from streamml.batch.microbatch import MicroBatch
from streamml.batch.outcome import Failure
from streamml.errors import FatalError, ModelOutOfMemory, TransientError
from streamml.stages.fitting import FittingRows

T = TypeVar("T")
Part = tuple[MicroBatch, T]


def isolate(
    call: Callable[[MicroBatch], T],
    batch: MicroBatch,
    explain: Callable[[Exception], Failure],
    fitting: FittingRows | None = None,
) -> tuple[list[Part[T]], list[tuple[MicroBatch, Failure]]]:
    """``call`` on the batch, and where it raises on its halves, down to single rows.

    Args:
        batch: at least one row.
        fitting: cuts the batch to what fits into memory, and learns from what did not.

    Returns:
        The parts that passed with their results, and the single rows that did not with the reason; both in row order.

    Raises:
        TransientError, FatalError: as raised by ``call``, but for `ModelOutOfMemory`, which only says that fewer rows may pass.
    """
    passed: list[Part[T]] = []
    failed: list[tuple[MicroBatch, Failure]] = []
    alone: list[int] = []
    too_large: list[range] = []
    waiting = [range(len(batch))] if fitting is None else fitting.cut(len(batch))[::-1]
    while waiting:
        rows = waiting.pop()
        part = batch if len(rows) == len(batch) else batch.take(slice(rows.start, rows.stop))
        try:
            passed.append((part, call(part)))
        except Exception as error:  # The rows that it is about end with it.
            if not _about_rows(error):
                raise
            if len(rows) == 1:
                failed.append((part, explain(error)))
                alone.append(rows.start)
                continue
            if isinstance(error, ModelOutOfMemory):
                too_large.append(rows)
            half = rows.start + len(rows) // 2
            waiting += [range(half, rows.stop), range(rows.start, half)]
    if fitting is not None:
        # A part with a row that fails alone says nothing of how many ordinary rows fit.
        shrunk = [len(rows) for rows in too_large if not any(row in rows for row in alone)]
        fitting.learn([len(part) for part, _ in passed], shrunk)
    return passed, failed


def _about_rows(error: Exception) -> bool:
    """Whether fewer rows, or others, may pass."""
    return isinstance(error, ModelOutOfMemory) or not isinstance(error, (FatalError, TransientError))
