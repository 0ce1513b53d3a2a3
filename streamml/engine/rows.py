"""Rows in and out of the engine: polled runs as rows, outcomes by slot, and the account that every stage gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamml.batch.column import Array
from streamml.batch.microbatch import HEADERS, KEY, VALUE, MicroBatch, Origin
from streamml.batch.outcome import Outcomes
from streamml.engine.assignment import Slot
from streamml.errors import LedgerViolation
from streamml.ports.source import RecordRun


def rows_of(run: RecordRun, slot: Slot) -> MicroBatch:
    """A polled run as rows, entered into the slot's ledger."""
    count = len(run)
    first = slot.ledger.open(run)
    origin = Origin(
        slot=np.full(count, slot.number, np.int64),
        ordinal=np.arange(first, first + count, dtype=np.int64),
        offset=run.offsets,
        timestamp=run.timestamps,
        flags=np.zeros(count, np.int64),
    )
    columns: dict[str, Array] = {VALUE: run.values}
    if run.keys is not None:
        columns[KEY] = run.keys
    if run.headers is not None:
        columns[HEADERS] = run.headers
    return MicroBatch(origin, columns)


def split_by_slot(piece: Outcomes) -> list[tuple[int, Outcomes]]:
    """Rows by slot, order kept; empty pieces vanish."""
    if not len(piece):
        return []
    slots = piece.origin.slot
    if (slots == slots[0]).all():
        return [(int(slots[0]), piece)]
    return [(int(number), piece.take(slots == number)) for number in np.unique(slots)]


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
