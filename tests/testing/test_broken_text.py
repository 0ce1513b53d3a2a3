"""Text with a lone surrogate, which a user's function can make and no bytes stand for, costs its own row and no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import streamml as sm
from streamml.batch.column import Columns, object_array
from streamml.testing import TopologyDriver

BROKEN = "\ud800"


class Visit(BaseModel):
    id: str
    page: int = 1


class Scored(BaseModel):
    id: str
    visits: float = 0.0


def name_visitors(columns: Columns) -> dict[str, Any]:
    """The visitor is the id; for those that begin with x half of a character, for those that begin with n nobody."""
    ids = columns["id"].tolist()
    names = object_array([BROKEN if id.startswith("x") else id for id in ids], len(ids))
    return {"visitor": np.ma.MaskedArray(names, [id.startswith("n") for id in ids])}


NAMED = sm.Transform(name_visitors, inputs=("id",), outputs={"visitor": "text?"})


def run(*, lookups: list[sm.FeatureSet], key: str | None = None, ids: list[str]) -> TopologyDriver:
    steps: list[Any] = [NAMED, *([sm.FeatureLookup(*lookups)] if lookups else [])]
    driver = TopologyDriver(
        sm.Topology(
            "visits",
            source=sm.Source("visits", schema=Visit, start="earliest"),
            steps=steps,
            sink=sm.Sink("scores", schema=Scored, key=key),
            dead_letters=sm.DeadLetterQueue("visits.dlq", max_ratio=1),
        )
    )
    for one in lookups:
        rows: dict[Any, Any] = {("a", 1) if len(one.key) > 1 else "a": {"visits": 3.0}}
        driver.features(one, rows)
    for id in ids:
        driver.send({"id": id}, key=b"k")
    driver.settle()
    return driver


def visits(name: str, *key: str) -> sm.FeatureSet:
    return sm.FeatureSet(name, key=key, columns={"visits": sm.f4(default=0.0)}, max_default_ratio=1.0)


@pytest.mark.parametrize(
    "lookups",
    [
        [visits("by_visitor", "visitor")],
        [visits("by_page", "visitor", "page")],
        [visits("by_visitor", "visitor"), visits("by_page", "page", "visitor")],
    ],
    ids=["one part", "two parts", "two sets"],
)
def test_a_lookup_key_that_is_no_unicode_is_a_dead_letter(lookups: list[sm.FeatureSet]) -> None:
    driver = run(lookups=lookups, ids=["a", "x1", "b", "n1", "x2"])
    assert [one.value["id"] for one in driver.predictions()] == ["a", "b", "n1"]
    assert [(one.error, one.offset) for one in driver.dead_letters()] == [("StepFailed", 1), ("StepFailed", 4)]
    assert "visitor" in driver.dead_letters()[0].message
    assert driver.commits()


def test_nothing_but_such_keys_is_nothing_but_dead_letters() -> None:
    driver = run(lookups=[visits("by_visitor", "visitor")], ids=["x1", "x2"])
    assert (driver.predictions(), len(driver.dead_letters())) == ([], 2)


@pytest.mark.parametrize("ids", [["a", "x1", "b"], ["a", "x1", "n1", "b"], ["x1"]], ids=["text", "with nulls", "alone"])
def test_a_prediction_key_that_is_no_unicode_is_a_dead_letter(ids: list[str]) -> None:
    driver = run(lookups=[], key="visitor", ids=ids)
    good = [id for id in ids if not id.startswith("x")]
    assert [one.value["id"] for one in driver.predictions()] == good
    assert [one.key for one in driver.predictions()] == [None if id == "n1" else id.encode() for id in good]
    ((error, step, message),) = [(one.error, one.step, one.message) for one in driver.dead_letters()]
    assert (error, step) == ("EncodeError", "encode")
    assert "Unicode" in message
