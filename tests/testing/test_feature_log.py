"""What is written to a feature log, and that no position is committed before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import streamml as sm
from streamml.engine.feature_log import LogSchema
from streamml.errors import FatalError
from streamml.ports.feature_log import LoggedRows
from streamml.ports.source import TopicPartition
from streamml.settings.settings import WorkerSettings
from streamml.testing import TopologyDriver
from tests.testing.shop import accounts, driver, payment, payments

LOGGED = replace(payments(on_tombstone="forward"), feature_log=sm.FeatureLog("payments.features"))
GUARANTEES = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])


def logged(run: TopologyDriver) -> list[tuple[bytes, LoggedRows]]:
    schema = LogSchema(LOGGED.feature_columns)
    records = run.broker.records("payments.features")
    return [(one.key or b"", schema.decode(one.value or b"")) for one in records]


def test_the_log_has_what_each_prediction_used_and_nothing_else() -> None:
    run = driver(LOGGED)
    run.send(payment(0))
    run.send(payment(1, account="bob"))
    run.send(payment(2, amount=-1.0))
    run.send(payment(3, amount=0.0))
    run.send(b"broken")
    run.send(None, key="k")
    run.send(payment(6))
    run.settle()

    rows = [
        (key, offset, read.texts[text], float(mean))
        for key, read in logged(run)
        for offset, text, mean in zip(
            read.offset.tolist(), read.text.tolist(), read.columns["accounts.mean"], strict=True
        )
    ]

    assert rows == [
        (b"payments/0", 0, "accounts@v1", 5.0),
        (b"payments/0", 1, "accounts@v1:missing", 10.0),
        (b"payments/0", 6, "accounts@v1", 5.0),
    ]
    assert len(run.predictions()) == 4


def test_rows_of_each_source_partition_lie_together_in_order() -> None:
    run = driver(LOGGED, partitions=3)
    for number in range(300):
        run.send(payment(number), partition=number % 7 % 3)
    run.settle()

    found: dict[bytes, list[int]] = {}
    for key, read in logged(run):
        found.setdefault(key, []).extend(read.offset.tolist())

    assert sorted(found) == [b"payments/0", b"payments/1", b"payments/2"]
    assert all(offsets == list(range(len(offsets))) for offsets in found.values())
    assert sum(map(len, found.values())) == 300


def test_children_are_told_apart() -> None:
    explode = sm.Explode(
        lambda columns: {
            "part": np.repeat(columns["amount"], 2),
            sm.PARENT: np.repeat(np.arange(len(columns["amount"])), 2),
        },
        inputs=("amount",),
        outputs={"part": "f8"},
        name="halves",
    )
    run = driver(replace(LOGGED, steps=(*LOGGED.steps[:2], explode, *LOGGED.steps[2:])))
    run.send(payment(0))
    run.settle()

    ((_, read),) = logged(run)
    assert read.offset.tolist() == [0, 0]
    assert read.child is not None
    assert read.child.tolist() == [0, 1]


@GUARANTEES
def test_d1_d2_nothing_is_committed_while_the_log_is_not_written(guarantee: Any) -> None:
    """D1, D2: a refused record of the log ends the worker; what it was about is read again by the next."""
    run = driver(LOGGED, settings=WorkerSettings(processing_guarantee=guarantee))
    run.broker.refuse(lambda topic, record: "too large" if topic == "payments.features" else None)
    run.send(payment(0))
    run.send(payment(1, amount=0.0))

    with pytest.raises(FatalError, match="feature log"):
        run.settle()
    assert run.commits().get(TopicPartition("payments", 0), 0) == 0

    run.broker.refuse(lambda topic, record: None)
    run.crash()
    run.settle()
    assert run.commits()[TopicPartition("payments", 0)] == 2
    assert [read.offset.tolist() for _, read in logged(run)] == [[0]]


@GUARANTEES
def test_a_refused_prediction_becomes_a_dead_letter_beside_a_log(guarantee: Any) -> None:
    """The records of the log come behind those of the rows and are not taken for them."""
    run = driver(LOGGED, settings=WorkerSettings(processing_guarantee=guarantee))
    run.broker.refuse(lambda topic, record: "no" if topic == "verdicts" and record.key == b"p1" else None)
    for number, amount in enumerate([20.0, 20.0, 0.0, 20.0]):
        run.send(payment(number, amount=amount))
    run.settle()

    assert [one.value["id"] for one in run.predictions()] == ["p0", "p3"]
    assert [one.id for one in run.dead_letters()] == ["payments/0/1"]
    assert run.commits()[TopicPartition("payments", 0)] == 4


@GUARANTEES
def test_a_log_survives_crashes_without_a_hole(guarantee: Any) -> None:
    """Once each exactly once, at least once otherwise."""
    run = driver(LOGGED, settings=WorkerSettings(processing_guarantee=guarantee))
    for number in range(200):
        run.send(payment(number))
        if number % 40 == 20:
            run.advance(0.01)
            run.crash()
    run.settle()

    offsets = [offset for _, read in logged(run) for offset in read.offset.tolist()]
    assert sorted(set(offsets)) == list(range(200))
    assert guarantee == "at_least_once" or len(offsets) == 200


def test_features_load_between_two_batches_shows_in_the_flags() -> None:
    run = driver(LOGGED)
    run.send(payment(0))
    run.settle()
    run.features(accounts, {"ann": {"mean": 8.0}})
    run.send(payment(1))
    run.settle()

    assert [(read.texts, read.columns["accounts.mean"].tolist()) for _, read in logged(run)] == [
        (("accounts@v1",), [5.0]),
        (("accounts@v2",), [8.0]),
    ]
