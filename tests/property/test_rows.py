"""Rows in and out of the engine."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from streamml.batch.microbatch import Origin
from streamml.engine.rows import stretches


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20)), max_size=8))
@example([(1, 32)])
@example([(1, 32), (0, 1)])
@example([(1, 30), (0, 1), (1, 1)])
def test_rows_of_one_slot_lie_in_stretches(runs: list[tuple[int, int]]) -> None:
    """Few rows are looked at in another way than many."""
    slots = [slot for slot, rows in runs for _ in range(rows)]
    zeros = np.zeros(len(slots), np.int64)
    found = stretches(Origin(np.array(slots, np.int64), zeros, zeros, zeros, zeros))
    assert [slot for slot, _, _ in found] == [slot for slot, _ in groupby(slots)]
    assert [slot for slot, start, end in found for _ in range(start, end)] == slots
