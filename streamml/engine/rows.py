"""Rows in and out of the engine: polled runs as rows, outcomes by slot, and the account that every stage gives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import numpy as np

from streamml.batch.column import Array
from streamml.batch.microbatch import HEADERS, KEY, VALUE, MicroBatch, Origin
from streamml.batch.outcome import Outcomes
from streamml.engine.assignment import Slot
from streamml.errors import LedgerViolation
from streamml.ports.source import RecordRun

# So many rows are looked at one by one sooner than numpy begins.
_FEW: Final = 32


def rows_of(polled: Sequence[tuple[RecordRun, Slot]]) -> MicroBatch:
    """Polled runs as rows, entered into their slots' ledgers. At least one run; all have the same columns."""
    runs = [run for run, _ in polled]
    counts = [len(run) for run in runs]
    ends = list(accumulate(counts))
    # What a row's place in the batch lacks to its ordinal.
    shifts = [slot.ledger.open(run) - end + count for (run, slot), count, end in zip(polled, counts, ends, strict=True)]
    origin = Origin(
        slot=np.array([slot.number for _, slot in polled]).repeat(counts),
        ordinal=np.arange(ends[-1]) + np.array(shifts).repeat(counts),
        offset=np.concatenate([run.offsets for run in runs]),
        timestamp=np.concatenate([run.timestamps for run in runs]),
        flags=np.zeros(ends[-1], np.int64),
    )
    columns = {VALUE: np.concatenate([run.values for run in runs])}
    if runs[0].keys is not None:
        columns[KEY] = np.concatenate([run.keys for run in runs if run.keys is not None])
    if runs[0].headers is not None:
        columns[HEADERS] = np.concatenate([run.headers for run in runs if run.headers is not None])
    return MicroBatch(origin, columns)


def stretches(origin: Origin) -> list[tuple[int, int, int]]:
    """Slot, start and end of each stretch of rows with one slot. Rows of one poll lie together by slot."""
    slots = origin.slot
    if not len(slots):
        return []
    if len(slots) <= _FEW:
        numbers = slots.tolist()
        starts = [0, *(row for row in range(1, len(numbers)) if numbers[row] != numbers[row - 1])]
    else:
        starts = [0, *((slots[1:] != slots[:-1]).nonzero()[0] + 1).tolist()]
    return list(zip(map(slots.item, starts), starts, [*starts[1:], len(slots)], strict=True))


def split_by_slot(piece: Outcomes) -> list[tuple[int, Outcomes]]:
    """Rows by slot, order kept; empty pieces vanish."""
    found = stretches(piece.origin)
    numbers = dict.fromkeys(number for number, _, _ in found)
    if len(numbers) < len(found):
        return [(number, piece.take(piece.origin.slot == number)) for number in numbers]
    return [(number, piece.take(slice(start, end))) for number, start, end in found]


def not_of(origin: Origin, records: set[tuple[int, int]]) -> Array:
    """Which rows are of none of these records (slot, ordinal); bool ``[n]``."""
    pairs = zip(origin.slot.tolist(), origin.ordinal.tolist(), strict=True)
    return np.fromiter((pair not in records for pair in pairs), bool, count=len(origin))


def _parents(origins: Sequence[Origin]) -> set[tuple[int, int]]:
    """Slot and ordinal of every parent."""
    return {pair for one in origins for pair in zip(one.slot.tolist(), one.ordinal.tolist(), strict=True)}


def check_conservation(before: MicroBatch, after: MicroBatch, outcomes: Sequence[Outcomes]) -> None:
    """Every row of a stage's batch goes on or ends (design, section 5)."""
    exploded = after.origin.child is not None or any(piece.origin.child is not None for piece in outcomes)
    if exploded and before.origin.child is None:
        if _parents([after.origin, *(piece.origin for piece in outcomes)]) == _parents([before.origin]):
            return
    elif len(before) == len(after) + sum(len(piece) for piece in outcomes):
        return
    raise LedgerViolation(f"A stage took {len(before)} rows and did not give account of each.")
