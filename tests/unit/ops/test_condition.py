"""Conditions on event columns: what they mean, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from streamml.batch.column import ColumnType, object_array
from streamml.errors import ConfigError
from streamml.ops.replay.condition import condition

COLUMNS = {
    name: ColumnType.parse(kind)
    for name, kind in {
        "carrier": "text",
        "delay": "f8",
        "stops": "i8?",
        "late": "bool",
        "at": "timestamp",
        "note": "text?",
        "vector": "f4[2]",
    }.items()
}
VALUES = {
    "carrier": object_array(["UA", "DL", "AA", "UA"], 4),
    "delay": np.array([10.0, 20.0, 30.0, -5.0]),
    "stops": np.ma.masked_array([0, 1, 2, 3], [False, False, True, False]),
    "late": np.array([False, True, True, False]),
    "at": np.array(["2026-01-01T00", "2026-01-01T01", "2026-01-01T02", "2026-01-01T03"], "M8[us]"),
    "note": np.ma.masked_array(object_array(["a", None, "b", "c"], 4), [False, True, False, False]),
}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('carrier == "UA"', [0, 3]),
        ('carrier == "UA" and delay > 0', [0]),
        ("not late or delay >= 30", [0, 2, 3]),
        ("late", [1, 2]),
        ("late == False", [0, 3]),
        ('carrier in ("DL", "AA")', [1, 2]),
        ("stops not in (1, 2)", [0, 3]),
        ("stops is None", [2]),
        ("not stops > 1", [0, 1]),
        ("not (stops > 1 and delay > 100)", [0, 1, 2, 3]),
        ("not (stops > 1 or delay > 100)", [0, 1]),
        ("not delay / (delay - 10) > 3", [1, 2, 3]),
        ("stops is not None and stops > 0", [1, 3]),
        ("stops != 99", [0, 1, 3]),
        ("0 < delay < 25", [0, 1]),
        ("delay * 2 - 10 > 15", [1, 2]),
        ("delay % 20 == 10", [0, 2]),
        ("delay < -1", [3]),
        ('note > "a"', [2, 3]),
        ('at >= "2026-01-01T02:00:00+01:00"', [1, 2, 3]),
        ("1 < 2 and delay > 0", [0, 1, 2]),
        ("late or 2 < 1", [1, 2]),
        ("5 < 7 < delay", [0, 1, 2]),
        ("1 in (1, 2) and late", [1, 2]),
    ],
)
def test_a_condition_picks_rows_and_nothing_is_true_of_what_is_not_there(text: str, kept: list[int]) -> None:
    found = condition(text, COLUMNS)
    assert np.flatnonzero(found.function({name: VALUES[name] for name in found.columns})).tolist() == kept


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("__import__('os').system('x')", "not among"),
        ("carrier.upper() == 'UA'", "not among"),
        ("[late for late in (1,)]", "not among"),
        ("delay ** 9 ** 9 > 1", "not among"),
        ("carier == 'UA'", "no column 'carier'; it has carrier"),
        ("carrier == 1", "carrier is a text and 1 a number"),
        ("delay", "is a number and not true or false"),
        ("late and delay", "'delay' is a number"),
        ("vector == 1", "cannot be compared"),
        ("at > '2026-01-01T00:00'", "with its zone"),
        ("True", "reads no column"),
        ("delay >", "cannot be read"),
        ("delay in 5", "stands a list"),
        ("(" * 500 + "late" + ")" * 500, "cannot be read"),
        ("delay > 1 / 0", "cannot be computed: division by zero"),
        (f"stops + {10**30} > 1", "cannot be computed"),
        # Each side is computed for each neighbour, so this would take a time that doubles with its depth.
        ("(" * 60 + "late" + " in (True, False))" * 60, "not compared again"),
        ("True == (" * 60 + "late" + ") == True" * 60, "not compared again"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        condition(text, COLUMNS)
    assert told in str(error.value)
