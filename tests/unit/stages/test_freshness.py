"""What a value is worth to a row, by their times."""

from __future__ import annotations

import numpy as np

from streamml.stages.freshness import State, states


def test_f2_times_further_apart_than_64_bits_hold_are_old_or_of_the_future() -> None:
    """F2.2."""
    rows = np.array([0, 2**62, 2**63 - 1, 2**62, -(2**62), 5, 5])
    values = np.array([-(2**63) + 1, -(2**62) - 5, -(2**63), 2**63 - 1, 2**62 + 5, 5, 6])
    found = states(np.ones(7, np.bool_), rows, values, 10)
    assert found is not None
    assert found.tolist() == [*[State.STALE] * 3, State.FROM_FUTURE, State.FROM_FUTURE, State.FRESH, State.FROM_FUTURE]
    without_ttl = states(np.ones(3, np.bool_), rows[:3], values[:3], None)
    assert without_ttl is None
