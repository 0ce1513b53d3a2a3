"""Rows that are looked up in a feature log get what they had live."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import streamml as sm
from streamml.adapters.memory.feature_log import RecordedInMemory
from streamml.batch.column import object_array
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import MicroBatch, Origin
from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.feature_log import LogSchema
from streamml.ports.feature_log import LoggedRows
from streamml.ports.source import RawRecord
from streamml.stages.lookup import LookUp
from streamml.stages.recorded import NOT_RECORDED, LookUpRecorded
from streamml.testing import TopologyDriver
from tests.testing.shop import accounts, driver, payment
from tests.testing.test_feature_log import LOGGED

PREFIXES = ["payments/0/", "payments/1/"]


def recorded(run: TopologyDriver) -> LookUpRecorded:
    log = RecordedInMemory(run.broker.records("payments.features"), LogSchema(LOGGED.feature_columns))
    return LookUpRecorded("lookup", [accounts], log, PREFIXES)


def rows(slots: list[int], offsets: list[int], children: list[int] | None = None) -> MicroBatch:
    slot, offset = np.array(slots, np.int64), np.array(offsets, np.int64)
    zeros = np.zeros(len(slots), np.int64)
    child = None if children is None else np.array(children, np.int64)
    return MicroBatch(Origin(slot, offset, offset, zeros, zeros, child), {"n": np.arange(len(slots))})


def failed(ended: list[Outcomes]) -> list[tuple[int, str]]:
    return [
        (offset, failure.message)
        for piece in ended
        if piece.kind is Kind.DEAD_LETTER and piece.values is not None
        for offset, failure in zip(piece.origin.offset.tolist(), piece.values.tolist(), strict=True)
    ]


def test_rows_get_the_columns_and_flags_that_they_had_live() -> None:
    run = driver(LOGGED, partitions=2)
    run.send(payment(0), partition=0)
    run.send(payment(1, account="bob"), partition=1)
    run.send(payment(2), partition=1)
    run.settle()
    run.features(accounts, {"ann": {"mean": 99.0}})
    run.send(payment(3), partition=0)
    run.settle()

    batch, ended = recorded(run).apply(rows([1, 0, 1, 0], [0, 0, 1, 1]), 0.0)

    assert ended == []
    assert batch.columns["accounts.mean"].tolist() == [10.0, 5.0, 5.0, 99.0]
    assert [FLAGS.text(code) for code in batch.origin.flags.tolist()] == [
        "accounts@v1:missing",
        "accounts@v1",
        "accounts@v1",
        "accounts@v2",
    ]
    assert batch.columns["n"].tolist() == [0, 1, 2, 3]


def test_a_row_without_recorded_features_is_a_dead_letter_that_says_so() -> None:
    run = driver(LOGGED)
    for number, amount in enumerate([1.0, -1.0, 2.0]):
        run.send(payment(number, amount=amount))
    run.settle()

    batch, ended = recorded(run).apply(rows([0, 0, 0, 0, 1], [0, 1, 2, 3, 0]), 0.0)

    assert batch.origin.offset.tolist() == [0, 2]
    assert failed(ended) == [(1, NOT_RECORDED), (3, NOT_RECORDED), (0, NOT_RECORDED)]


def test_where_other_sets_are_as_they_are_now_a_row_without_recorded_features_gets_the_defaults_flagged() -> None:
    """F5.6."""
    run = driver(LOGGED)
    for number, amount in enumerate([1.0, -1.0]):
        run.send(payment(number, amount=amount))
    run.settle()
    log = RecordedInMemory(run.broker.records("payments.features"), LogSchema(LOGGED.feature_columns))

    def scored(sets: sm.FeatureSet) -> tuple[MicroBatch, list[Outcomes]]:
        return LookUpRecorded("lookup", [sets], log, PREFIXES, partly=True).apply(rows([0, 0], [0, 1]), 0.0)

    batch, ended = scored(accounts)
    assert ended == []
    assert batch.columns["accounts.mean"].tolist() == [5.0, accounts.columns["mean"].default]
    assert [FLAGS.text(code) for code in batch.origin.flags.tolist()] == ["accounts@v1", "accounts:missing"]
    strict, ended = scored(sm.FeatureSet("accounts", key="account", columns=accounts.columns, if_missing="dead_letter"))
    assert strict.origin.offset.tolist() == [0]
    assert failed(ended) == [(1, NOT_RECORDED)]


def test_being_late_is_of_then_and_not_recorded() -> None:
    run = driver(LOGGED)
    for number in range(2):
        run.send(payment(number), timestamp=int(run.clock.now() * 1000) - 1000)
    run.settle()
    assert all("late" in one.flags for one in run.predictions())

    batch, _ = recorded(run).apply(rows([0, 0], [0, 1]), 0.0)

    assert {FLAGS.text(code) for code in batch.origin.flags.tolist()} == {"accounts@v1:from_future"}


def _logged(children: list[int]) -> RecordedInMemory:
    schema = LogSchema({"accounts.mean": sm.f4})
    offsets = [5] * len(children)
    origin = rows([0] * len(children), offsets, children).origin
    packed = schema.pack({"accounts.mean": np.array(children, "f4") * 10}, len(children))
    return RecordedInMemory([RawRecord(b"payments/0", schema.encode(origin, packed), [], 0)], schema)


@pytest.mark.parametrize(
    ("children", "wanted", "values"),
    [([0, 1, 2], [0, 1, 2], [0.0, 10.0, 20.0]), ([0, 2], [0, 1, 2], [0.0, 20.0]), ([1, 2], None, [10.0])],
    ids=["each child its own", "a child that failed live", "before they were children"],
)
def test_children_are_told_apart(children: list[int], wanted: list[int] | None, values: list[float]) -> None:
    count = 1 if wanted is None else len(wanted)
    lookup = LookUpRecorded("lookup", [accounts], _logged(children), PREFIXES)

    batch, ended = lookup.apply(rows([0] * count, [5] * count, wanted), 0.0)

    assert batch.columns["accounts.mean"].tolist() == values
    assert len(failed(ended)) == count - len(values)


def test_a_lookup_and_its_record_agree_bit_for_bit() -> None:
    """Whatever was stored, and whatever became of it: the same columns and the same flags."""
    vectors = sm.FeatureSet(
        "accounts",
        key="account",
        columns={
            "mean": sm.f4(default=10.0),
            "vector": sm.f8[3](default=0.25),
            "at": sm.timestamp(default="2020-01-01"),
        },
        max_default_ratio=1.0,
    )
    steps = list(LOGGED.steps)
    steps[1] = sm.FeatureLookup(vectors)
    topology = replace(LOGGED, steps=tuple(steps))
    run = TopologyDriver(topology, models={"fraud": lambda tensors: {"score": tensors["x"][:, 0]}})
    values: dict[str, Any] = {"mean": 1 / 3, "vector": [0.1, np.inf, -0.0], "at": np.datetime64("2024-05-06", "us")}
    run.features(vectors, {"ann": values})
    names = ["ann", "bob", "ann"]
    for number, account in enumerate(names):
        run.send(payment(number, account=account))
    run.settle()
    log = RecordedInMemory(run.broker.records("payments.features"), LogSchema(topology.feature_columns))
    bare = rows([0] * 3, [0, 1, 2])
    now = np.full(3, int(run.clock.now() * 1000), np.int64)
    batch = MicroBatch(replace(bare.origin, timestamp=now), {"account": object_array(names, 3)})

    live, _ = LookUp("lookup", [vectors], run.store, None).apply(batch, 0.0)
    again, ended = LookUpRecorded("lookup", [vectors], log, PREFIXES).apply(batch, 0.0)

    assert ended == []
    assert again.origin.flags.tolist() == live.origin.flags.tolist()
    for name in topology.feature_columns:
        assert again.columns[name].dtype == live.columns[name].dtype
        assert again.columns[name].tobytes() == live.columns[name].tobytes()


def test_rows_of_a_log_are_joined_with_their_texts() -> None:
    schema = LogSchema({"a.x": sm.f4})
    parts = [
        LoggedRows(np.array([1]), None, np.array([0]), ("a@1",), {"a.x": np.array([1], "f4")}),
        LoggedRows(np.array([2, 2]), np.array([0, 1]), np.array([1, 0]), ("b", "c"), {"a.x": np.array([2, 3], "f4")}),
    ]
    whole = LoggedRows.join([schema.nothing(), *parts])
    assert [whole.texts[place] for place in whole.text.tolist()] == ["a@1", "c", "b"]
    assert whole.children.tolist() == [-1, 0, 1]
