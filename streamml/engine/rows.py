"""Rows in and out of the engine: polled runs as rows, outcomes by slot, and the account that every stage gives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from streamml.batch.column import Array
from streamml.batch.microbatch import HEADERS, KEY, VALUE, MicroBatch, Origin
from streamml.batch.outcome import Outcomes
from streamml.engine.assignment import Slot
from streamml.errors import LedgerViolation
from streamml.ports.source import RecordRun


def rows_of(polled: Sequence[tuple[RecordRun, Slot]]) -> MicroBatch:
    """Polled runs as rows, entered into their slots' ledgers. At least one run; all have the same columns."""
    runs = [run for run, _ in polled]
    counts = [len(run) for run in runs]
    firsts = [slot.ledger.open(run) for run, slot in polled]
    origin = Origin(
        slot=np.repeat([slot.number for _, slot in polled], counts),
        ordinal=np.concatenate([np.arange(first, first + count) for first, count in zip(firsts, counts, strict=True)]),
        offset=np.concatenate([run.offsets for run in runs]),
        timestamp=np.concatenate([run.timestamps for run in runs]),
        flags=np.zeros(sum(counts), np.int64),
    )
    columns = {VALUE: np.concatenate([run.values for run in runs])}
    if runs[0].keys is not None:
        columns[KEY] = np.concatenate([run.keys for run in runs if run.keys is not None])
    if runs[0].headers is not None:
        columns[HEADERS] = np.concatenate([run.headers for run in runs if run.headers is not None])
    return MicroBatch(origin, columns)


def split_by_slot(piece: Outcomes) -> list[tuple[int, Outcomes]]:
    """Rows by slot, order kept; empty pieces vanish."""
    if not len(piece):
        return []
    slots = piece.origin.slot
    edges = [0, *((slots[1:] != slots[:-1]).nonzero()[0] + 1).tolist(), len(slots)]
    if len(edges) == 2:
        return [(int(slots[0]), piece)]
    numbers = slots[edges[:-1]].tolist()
    distinct = list(dict.fromkeys(numbers))
    if len(distinct) < len(numbers):
        return [(number, piece.take(slots == number)) for number in distinct]
    # Rows of one poll lie together by slot, and a slice copies nothing.
    return [(number, piece.take(slice(*edge))) for number, edge in zip(numbers, pairwise(edges), strict=True)]


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
