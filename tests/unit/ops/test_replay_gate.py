"""Conditions on a comparison."""

from __future__ import annotations

import pytest

from streamml.errors import ConfigError
from streamml.ops.replay.comparison import Comparison, Counts
from streamml.ops.replay.gate import Gate, exceeded, parse_gates


def found(flipped: int = 0, **counts: int) -> Comparison:
    """A comparison of these counts."""
    return Comparison("t", 1, "live", ("a", "b"), 0, Counts(**counts), (), {}, (), flipped, "key", (), (), (), 0)


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("changed > 2%", Gate("changed", 2, True)),
        ("  dead_lettered>0 ", Gate("dead_lettered", 0, False)),
        ("missing > 0.5 %", Gate("missing", 0.5, True)),
        ("extra > 12", Gate("extra", 12, False)),
        ("flips > 100%", Gate("flips", 100, True)),
    ],
)
def test_a_condition_is_read(text: str, gate: Gate) -> None:
    assert parse_gates((text,), thresholds=True) == (gate,)


def test_several_conditions_may_stand_in_one_text_or_in_many() -> None:
    read = parse_gates(("changed > 1, extra > 2", "missing > 3"), thresholds=False)
    assert [str(one) for one in read] == ["changed > 1", "extra > 2", "missing > 3"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "changed",
        "changed < 2",
        "changed > -1",
        "changed > 2%%",
        "changed > nan",
        "change > 1",
        "changed > 101%",
        "flips > 1",
    ],
)
def test_what_is_no_condition_is_said_before_anything_is_read(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_gates((text, "x > 1"), thresholds=False)
    assert len(raised.value.problems) == 2


def test_exactly_the_limit_still_holds() -> None:
    gates = parse_gates(("changed > 2%", "changed > 2"), thresholds=False)
    assert exceeded(gates, found(same=98, changed=2)) == []
    assert exceeded(gates, found(same=97, changed=3)) == [
        "changed > 2%: there are 3 of 100 rows, 3.00 %",
        "changed > 2: there are 3 of 100 rows",
    ]


def test_a_comparison_without_rows_exceeds_no_share() -> None:
    assert exceeded(parse_gates(("changed > 0%",), thresholds=False), found()) == []


def test_flips_are_counted_by_row() -> None:
    assert exceeded((Gate("flips", 10, True),), found(flipped=3, same=10)) == [
        "flips > 10%: there are 3 of 10 rows, 30.00 %"
    ]
