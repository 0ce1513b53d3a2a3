"""Outcomes as records to be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamml.batch.outcome import Failure, Kind, Outcomes, dead_letters, join_outcomes
from streamml.engine.assignment import Assignment, SlotNames
from streamml.engine.dead_letters import Letter, compose_letter
from streamml.engine.identity import prediction_id
from streamml.engine.rows import not_of
from streamml.errors import FatalError
from streamml.ports.sink import OutboundRecords, Refusal


def prediction_records(block: Outcomes, topic: str) -> OutboundRecords:
    """Predictions with the time of the event's record."""
    assert block.values is not None
    assert block.keys is not None
    assert block.headers is not None
    return OutboundRecords(
        topic, block.keys.tolist(), block.values.tolist(), block.headers.tolist(), block.origin.timestamp.tolist()
    )


def refused_as_letters(
    rows: Sequence[Outcomes], refusals: Sequence[Refusal]
) -> tuple[tuple[Outcomes, ...], tuple[Outcomes, ...]]:
    """Rows without those that the broker refused, and these as dead letters.

    Raises:
        FatalError: it refused a dead letter, or a record of the feature log, which come behind those of the rows.
    """
    good = [np.ones(len(block), bool) for block in rows]
    letters: list[Outcomes] = []
    sent = sum(block.kind is not Kind.FILTERED for block in rows)
    for refusal in refusals:
        if refusal.block >= sent:
            raise FatalError(
                f"The broker refused a record of the feature log: {refusal.message}. See to the topic (max.message.bytes, "
                "cleanup.policy, message.timestamp.*), then start again; nothing is lost."
            )
        block = rows[refusal.block]
        if block.kind is Kind.DEAD_LETTER:
            raise FatalError(
                f"The broker refused a dead letter: {refusal.message}. Let the dead-letter topic take what the input topic "
                "takes (max.message.bytes above the input's, message.timestamp.after.max.ms as there), then start again; "
                "nothing is lost."
            )
        failure = Failure("sink", "EncodeError", f"The broker refused the prediction: {refusal.message}", block.model)
        letters.append(dead_letters(block.origin.take(slice(refusal.index, refusal.index + 1)), [failure]))
        good[refusal.block][refusal.index] = False
    rest = tuple(block.take(kept) for block, kept in zip(rows, good, strict=True) if kept.any())
    return rest, tuple(letters)


def in_order_of_letters(rows: Sequence[Outcomes]) -> tuple[Outcomes, ...]:
    """The same rows, all dead letters among them as one block in the order of their records."""
    letters = [block for block in rows if block.kind is Kind.DEAD_LETTER]
    if len(letters) < 2:
        return tuple(rows)
    whole = join_outcomes(letters)
    origin = whole.origin
    others = (block for block in rows if block.kind is not Kind.DEAD_LETTER)
    return (*others, whole.take(np.lexsort((origin.children, origin.ordinal, origin.slot))))


def without_parents_of(letters: Sequence[Outcomes], rows: Sequence[Outcomes]) -> tuple[Outcomes, ...]:
    """Rows without the siblings of these letters: a record is settled when all of its children are."""
    if not letters:
        return tuple(rows)
    waiting = {(int(one.origin.slot[0]), int(one.origin.ordinal[0])) for one in letters}
    return tuple(block.take(not_of(block.origin, waiting)) for block in rows)


@dataclass(frozen=True, slots=True)
class Letters:
    """Makes dead letters out of failures, from the records that the ledger still holds."""

    assignment: Assignment
    names: SlotNames
    topic: str
    worker: str

    def records(self, block: Outcomes, now: float) -> OutboundRecords:
        """The dead letters of a block whose slots are open."""
        letters = [self._letter(block, index, now) for index in range(len(block))]
        return OutboundRecords(
            self.topic,
            [letter.key for letter in letters],
            [letter.value for letter in letters],
            [letter.headers for letter in letters],
            [letter.timestamp for letter in letters],
        )

    def _letter(self, block: Outcomes, index: int, now: float) -> Letter:
        origin = block.origin
        assert block.values is not None
        number, ordinal, offset = int(origin.slot[index]), int(origin.ordinal[index]), int(origin.offset[index])
        slot = self.assignment.by_number(number)
        assert slot is not None
        run, place = slot.ledger.find(ordinal)
        id = prediction_id(self.names.prefixes[number], offset, origin.child_at(index))
        failure, record = block.values[index], run.records[place]
        return compose_letter(failure, record, slot.partition, offset, id, worker=self.worker, now=now)
