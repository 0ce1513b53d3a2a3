"""The stored layout of features: any values come back, and what is not of the layout is not present."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamml.adapters.redis.layout import Layout, entity_keys
from streamml.batch.column import f4, f8, i8
from streamml.ports.feature_store import FeatureSchema

LAYOUT = Layout.of(FeatureSchema("route", (("delay", f4), ("share", f8), ("flights", i8), ("vector", f4[3]))))
I8 = st.integers(-(2**63), 2**63 - 1)
ROW = st.tuples(st.floats(width=32), st.floats(), I8, st.tuples(*[st.floats(width=32)] * 3), I8)


@given(st.lists(ROW, min_size=1, max_size=20), st.data())
def test_f1_values_round_trip_and_damaged_ones_are_not_present(
    rows: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    """F1.3."""
    delay, share, flights, vector, times = (np.array(column) for column in zip(*rows, strict=True))
    columns = {"delay": delay.astype("f4"), "share": share, "flights": flights, "vector": vector.astype("f4")}
    values: list[bytes | None] = list(LAYOUT.encode(columns, times.astype("i8"), 5))
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
    decoded = LAYOUT.decode([damaged[how](value) for how, value in zip(damage, values, strict=True)])
    fine = np.array([how == "fine" for how in damage])
    assert decoded.present.tolist() == fine.tolist()
    assert decoded.corrupt == sum(how in ("cut", "longer", "stamp") for how in damage)
    assert decoded.event_time[fine].tolist() == times[fine].tolist()
    for name, column in columns.items():
        assert decoded.columns[name][fine].tobytes() == column[fine].tobytes()
        assert not decoded.columns[name][~fine].any()


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
