"""What becomes of a transaction in which the broker refuses a record."""

from __future__ import annotations

import numpy as np

from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.assignment import Assignment, SlotNames
from streamml.engine.backpressure import Budget
from streamml.engine.events import AbortTransaction, Action, CommitTransaction, Send
from streamml.engine.outbound import prediction_records
from streamml.engine.outbox import ExactlyOnce
from streamml.engine.retry import Backoff
from streamml.engine.rows import rows_of
from streamml.ports.sink import Delivered, OutboundRecords, Refusal, TransactionEnded
from tests.records import PARTITION, predictions_of, run_of


def _records(rows: tuple[Outcomes, ...], now: float) -> tuple[OutboundRecords, ...]:
    return tuple(map(_block_records, rows))


def _block_records(block: Outcomes) -> OutboundRecords:
    if block.kind is Kind.PREDICTION:
        return prediction_records(block, "predictions")
    nothing = [b""] * len(block)
    return OutboundRecords("letters", nothing, nothing, [[] for _ in nothing], np.zeros(len(block), np.int64).tolist())


def _sent(actions: list[Action]) -> Send:
    (send,) = [action for action in actions if isinstance(action, Send)]
    return send


def _offsets(send: Send) -> dict[str, list[int]]:
    return {block.kind.name: block.origin.offset.tolist() for block in send.outcomes}


def test_d2_a_transaction_with_a_refused_record_is_tried_again_with_its_dead_letter() -> None:
    """D2.3."""
    assignment = Assignment(SlotNames(), ordered=True)
    slot = assignment.open(PARTITION, 0)
    outbox = ExactlyOnce(_records, Budget(1_000, 1_000_000), 0.2, Backoff())
    outbox.put((predictions_of(rows_of([(run_of([0, 1, 2]), slot)])),))

    first = _sent(outbox.go_on([slot], 1.0, urgent=False, withheld=False))
    assert _offsets(first) == {"PREDICTION": [0, 1, 2]}
    outbox.delivered(Delivered(first.token, (Refusal(0, 1, "too large"),)))
    # The transaction may be on its way to its commit already; the broker takes it back then.
    outbox.ended(TransactionEnded(False), [slot], 1.1)
    again = outbox.go_on([slot], 9.0, urgent=True, withheld=False)

    assert not any(isinstance(action, AbortTransaction) for action in again)
    assert _offsets(_sent(again)) == {"PREDICTION": [0, 2], "DEAD_LETTER": [1]}
    assert CommitTransaction({PARTITION: 3}) in again
