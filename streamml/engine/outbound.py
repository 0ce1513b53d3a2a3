"""Outcomes as records to be written."""

from __future__ import annotations

from dataclasses import dataclass

from streamml.batch.outcome import Outcomes
from streamml.engine.assignment import Assignment, SlotNames
from streamml.engine.dead_letters import Letter, compose_letter
from streamml.engine.identity import prediction_id
from streamml.ports.sink import OutboundRecords


def prediction_records(block: Outcomes, topic: str) -> OutboundRecords:
    """Predictions with the time of the event's record."""
    assert block.values is not None
    assert block.keys is not None
    assert block.headers is not None
    return OutboundRecords(
        topic, block.keys.tolist(), block.values.tolist(), block.headers.tolist(), block.origin.timestamp.tolist()
    )


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
        child = None if origin.child is None else int(origin.child[index])
        id = prediction_id(self.names.prefixes[number], offset, child)
        failure, record = block.values[index], run.records[place]
        return compose_letter(failure, record, slot.partition, offset, id, worker=self.worker, now=now)
