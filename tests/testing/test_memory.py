"""B2: what waits for a model, or a broker, that stands still is bounded in rows and bytes, to the exact row and byte."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamml.batch.column import object_array
from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.backpressure import Budget
from streamml.engine.outbound import prediction_records
from streamml.engine.outbox import AtLeastOnce, ExactlyOnce
from streamml.engine.retry import Backoff
from streamml.ports.sink import Delivered, TransactionEnded
from streamml.settings.settings import WorkerSettings
from tests.records import origin_of
from tests.testing.shop import driver, payment

BUDGET_BYTES = 1_000_000


def most_in_flight(sizes: list[int], rows: int, poll: int) -> tuple[int, int]:
    """Rows and bytes after polls of ``poll`` records, one after the other until either budget is reached."""
    taken = 0
    while taken < min(rows, len(sizes)) and sum(sizes[:taken]) < BUDGET_BYTES:
        taken += poll
    return min(taken, len(sizes)), sum(sizes[:taken])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 400_000), min_size=1, max_size=30), st.integers(1, 20), st.integers(1, 7))
def test_b2_a_model_that_stands_still_holds_the_budget_and_one_poll_at_most(
    paddings: list[int], rows: int, poll: int
) -> None:
    """B2.1."""
    bounds = WorkerSettings(max_in_flight_rows=rows, max_in_flight_mb=1, max_poll_rows=poll)
    run = driver(settings=bounds, service_time={"fraud": lambda rows: 3600.0})
    values = [payment(n).model_dump_json().encode() + b" " * padding for n, padding in enumerate(paddings)]
    for value in values:
        run.send(value)
    run.advance("10m")
    gauge = run._engine.gauge
    assert run.predictions() == []
    assert (gauge.most_rows, gauge.most_bytes) == most_in_flight([len(value) for value in values], rows, poll)
    assert gauge.most_rows <= rows - 1 + poll
    run.settle(within="1000h")
    assert len(run.predictions()) == len(values)
    assert (gauge.rows, gauge.size_bytes) == (0, 0)


def blocks(sizes: list[int]) -> list[Outcomes]:
    """One prediction each, of so many bytes."""
    found = []
    for ordinal, size in enumerate(sizes):
        values, keys, headers = object_array([bytes(size)], 1), object_array([None], 1), object_array([[]], 1)
        found.append(Outcomes(Kind.PREDICTION, origin_of([ordinal]), values, keys, headers))
    return found


def most_outbound(sizes: list[int], budget: Budget) -> tuple[int, int]:
    taken = 0
    while taken < min(budget.rows, len(sizes)) and sum(sizes[:taken]) < budget.size_bytes:
        taken += 1
    return taken, sum(sizes[:taken])


SIZES = st.lists(st.integers(1, 100), min_size=1, max_size=40)
BUDGETS = st.builds(Budget, st.integers(1, 20), st.integers(1, 500))


@given(SIZES, BUDGETS)
def test_b2_a_broker_that_stands_still_is_handed_the_budget_and_one_block_at_most(
    sizes: list[int], budget: Budget
) -> None:
    """B2.6."""
    outbox = AtLeastOnce(lambda rows, now: tuple(prediction_records(one, "out") for one in rows), budget)
    for block in blocks(sizes):
        outbox.put((block,))
        outbox.go_on((), 0.0, urgent=False, withheld=False)
    gauge, most = outbox.gauge, most_outbound(sizes, budget)
    assert (gauge.most_rows, gauge.most_bytes) == (gauge.rows, gauge.size_bytes) == most
    assert outbox.crowded == (most[0] < len(sizes))
    for token in range(1, len(sizes) + 1):
        outbox.delivered(Delivered(token))
        outbox.go_on((), 0.0, urgent=False, withheld=False)
    assert (gauge.rows, gauge.size_bytes, outbox.crowded) == (0, 0, False)
    assert gauge.most_bytes <= budget.size_bytes - 1 + max(sizes)


@given(SIZES, BUDGETS, st.lists(st.booleans(), max_size=5))
def test_b2_d2_a_transaction_and_what_waits_for_the_next_are_bounded_also_when_it_is_taken_back(
    sizes: list[int], budget: Budget, committed: list[bool]
) -> None:
    """B2.6."""
    outbox = ExactlyOnce(
        lambda rows, now: tuple(prediction_records(one, "out") for one in rows), budget, 0.2, Backoff()
    )
    ledger = SimpleNamespace(position_at=lambda ordinal: ordinal)
    slots = [SimpleNamespace(number=0, partition="in", ledger=ledger, committed=0)]
    waiting = blocks(sizes)
    answers, now, settled = iter(committed), 0.0, 0
    for turn in count():
        if settled == len(sizes):
            break
        assert turn < 1_000
        while waiting and not outbox.crowded:
            outbox.put((waiting.pop(0),))
        now += 10.0
        actions = outbox.go_on(slots, now, urgent=False, withheld=False)  # type: ignore[arg-type]
        assert outbox.gauge.rows <= budget.rows
        assert outbox.gauge.size_bytes <= budget.size_bytes - 1 + max(sizes)
        if actions:
            ended = TransactionEnded(next(answers, True))
            settled += sum(map(len, outbox.ended(ended, slots, now)))  # type: ignore[arg-type]
    assert (outbox.gauge.rows, outbox.crowded) == (0, False)
    assert np.sum(sizes) >= outbox.gauge.most_bytes > 0
