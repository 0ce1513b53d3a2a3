"""Find the rows that make a batch fail (promise E2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from streamml.batch.microbatch import MicroBatch
from streamml.batch.outcome import Failure
from streamml.errors import FatalError, ModelBusy, TransientError

T = TypeVar("T")
Part = tuple[MicroBatch, T]


def isolate(
    call: Callable[[MicroBatch], T], batch: MicroBatch, explain: Callable[[Exception], Failure]
) -> tuple[list[Part[T]], list[tuple[MicroBatch, Failure]]]:
    """``call`` on the batch, and where it raises on its halves, down to single rows.

    Returns:
        The parts that passed with their results, and the single rows that did not with the reason; both in row order.

    Raises:
        TransientError, FatalError: as raised by ``call``. `ModelBusy` halves the batch first (promise M5).
    """
    passed: list[Part[T]] = []
    failed: list[tuple[MicroBatch, Failure]] = []
    waiting = [batch]
    while waiting:
        part = waiting.pop()
        try:
            passed.append((part, call(part)))
        except FatalError:
            raise
        except Exception as error:  # The rows that it is about end with it.
            if isinstance(error, TransientError) and (len(part) == 1 or not isinstance(error, ModelBusy)):
                raise
            if len(part) == 1:
                failed.append((part, explain(error)))
            else:
                half = len(part) // 2
                waiting += [part.take(slice(half, None)), part.take(slice(0, half))]
    return passed, failed
