"""What a worker holds, and when it commits, in virtual time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import pytest

import streamml as sm
from streamml.ports.source import TopicPartition
from streamml.settings.settings import WorkerSettings
from tests.testing.shop import driver, payment, payments

IN: Final = TopicPartition("payments", 0)


def test_d1_what_has_settled_is_committed_within_the_interval() -> None:
    """D1.6."""
    run = driver()
    settled: list[int] = []
    interval = WorkerSettings().commit_interval_ms // 10
    for number in range(100):
        run.send(payment(number))
        run.advance("10ms")
        settled.append(len(run.predictions()))
        assert run.commits()[IN] >= (settled[-interval - 1] if len(settled) > interval else 0)
    assert interval == 20
    assert settled[50] >= 50


def test_b3_a_backlog_and_an_outage_of_an_hour_fill_the_budget_and_no_more() -> None:
    """B3.1."""
    settings = WorkerSettings(max_in_flight_rows=100, max_poll_rows=40)
    run = driver(settings=settings)
    run.store.fail("It is away.")
    for number in range(1_000):
        run.send(payment(number))
    run.advance("1h")
    assert 100 <= run.statistics.polled < 100 + 40
    run.store.recover()
    run.settle()
    assert run.statistics.predictions == 1_000


def test_b2_the_budget_bounds_bytes_too() -> None:
    """B2.1."""
    run = driver(
        settings=WorkerSettings(max_in_flight_mb=1, max_poll_rows=40), service_time={"fraud": lambda rows: 1.0}
    )
    for number in range(500):
        run.send(payment(number, account="a" * 10_000))
    run.advance("100ms")
    # Some hundred bytes of each record are not the account.
    assert 1_000_000 / 10_200 <= run.statistics.polled < 1_000_000 / 10_000 + 40
    run.settle()
    assert run.statistics.predictions == 500


@pytest.mark.parametrize(("counted", "late"), [("record", [False, True]), ("event", [True, False])])
def test_m2_the_budget_counts_from_the_record_or_by_choice_from_the_event(
    counted: Literal["record", "event"], late: list[bool]
) -> None:
    """M2.2."""
    plain = payments(event_time="at")
    score = plain.steps[-1]
    assert isinstance(score, sm.Onnx)
    batching = sm.Batching(latency_budget="50ms", budget_from=counted)
    scored = sm.Onnx(score.name, outputs=score.outputs, batching=batching)
    run = driver(sm.Topology("payments", source=plain.source, steps=[*plain.steps[:-1], scored], **_ends(plain)))
    now = datetime.fromtimestamp(run.clock.now(), UTC)
    run.send(payment(1).model_copy(update={"at": now - timedelta(seconds=1)}), timestamp=now)
    run.send(payment(2).model_copy(update={"at": now}), timestamp=now - timedelta(seconds=1))
    run.settle()
    assert ["late" in one.flags for one in run.predictions()] == late


def _ends(topology: sm.Topology) -> dict[str, Any]:
    return {"sink": topology.sink, "dead_letters": topology.dead_letters}
