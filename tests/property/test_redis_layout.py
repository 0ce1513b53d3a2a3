"""The stored layout of features: any values come back, and what is not of the layout is not present."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamml.adapters.redis.keys import entity_keys, keys_of_sets
from streamml.adapters.redis.layout import Layout, writer_number
from streamml.batch.column import f4, f8, i8
from streamml.ports.feature_store import FeatureSchema

COLUMNS = (("delay", f4), ("share", f8), ("flights", i8), ("vector", f4[3]))
LOADED, STREAMING = (Layout.of(FeatureSchema("route", COLUMNS, kind)) for kind in ("loaded", "streaming"))
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "redis-layout.md"
I8 = st.integers(-(2**63), 2**63 - 1)
ROW = st.tuples(st.floats(width=32), st.floats(), I8, st.tuples(*[st.floats(width=32)] * 3), I8)


@pytest.mark.parametrize("layout", [LOADED, STREAMING], ids=["loaded", "streaming"])
@given(rows=st.lists(ROW, min_size=1, max_size=20), data=st.data())
def test_f1_values_round_trip_and_damaged_ones_are_not_present(
    layout: Layout, rows: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    """F1.3."""
    delay, share, flights, vector, times = (np.array(column) for column in zip(*rows, strict=True))
    columns = {"delay": delay.astype("f4"), "share": share, "flights": flights, "vector": vector.astype("f4")}
    values: list[bytes | None] = list(layout.encode(columns, times.astype("i8"), 5))
    damage = data.draw(
        st.lists(st.sampled_from(["none", "cut", "longer", "stamp", "fine"]), min_size=len(rows), max_size=len(rows))
    )
    damaged: dict[str, Callable[[Any], Any]] = {
        "none": lambda value: None,
        "cut": lambda value: value[:-1],
        "longer": lambda value: value + b"x",
        "stamp": lambda value: b"????" + value[4:],
        "fine": lambda value: value,
    }
    decoded = layout.decode([damaged[how](value) for how, value in zip(damage, values, strict=True)])
    fine = np.array([how == "fine" for how in damage])
    assert decoded.present.tolist() == fine.tolist()
    assert decoded.corrupt == sum(how in ("cut", "longer", "stamp") for how in damage)
    assert decoded.event_time[fine].tolist() == times[fine].tolist()
    for name, column in columns.items():
        assert decoded.columns[name][fine].tobytes() == column[fine].tobytes()
        assert not decoded.columns[name][~fine].any()


@given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4))), st.booleans())
def test_f1_sets_that_share_their_entities_have_the_keys_that_each_has_alone(
    entities: list[tuple[bytes, bytes]], same: bool
) -> None:
    """F1.4."""
    others = entities if same else entities[::-1]
    made = keys_of_sets([(b"a:", entities), (b"other:", others), (b"b:", [(b"x",)])])
    assert made == [entity_keys(b"a:", entities), entity_keys(b"other:", others), entity_keys(b"b:", [(b"x",)])]


@given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4)), unique=True, min_size=1))
def test_f1_distinct_entities_have_distinct_keys(entities: list[tuple[bytes, bytes]]) -> None:
    """F1.4."""
    keys = entity_keys(b"p:", entities)
    assert len(set(keys)) == len(entities)


@given(st.binary(min_size=1, max_size=300))
def test_f1_one_text_cut_at_different_places_gives_different_keys(text: bytes) -> None:
    """F1.4."""
    cuts = [(text[:place], text[place:]) for place in range(len(text) + 1)]
    assert len(set(entity_keys(b"p:", cuts))) == len(cuts)


def test_f1_a_value_of_the_other_kind_is_not_present() -> None:
    """F1.3."""
    columns = {name: np.zeros((1, *declared.shape), declared.dtype) for name, declared in COLUMNS}
    values = [layout.encode(columns, np.zeros(1, np.int64), 0)[0] for layout in (LOADED, STREAMING)]
    assert LOADED.decode(values).present.tolist() == [True, False]
    assert STREAMING.decode(values).present.tolist() == [False, True]


def test_the_example_of_the_page_is_what_is_written() -> None:
    layout = Layout.of(FeatureSchema("airport", (("mean_delay", f4), ("landings", i8)), "streaming"))
    columns = {"mean_delay": np.array([2.5], "f4"), "landings": np.array([3])}
    [value] = layout.encode(columns, np.array([1_000_000]), 2_000_000, writer_number("app"))
    shown = re.findall(r"^ ?\d+  ((?:[0-9a-f]{2} )+) *[a-z]", PAGE.read_text(), re.MULTILINE)
    assert bytes.fromhex("".join(shown)) == value
    assert layout.writer_of(value) == writer_number("app")
