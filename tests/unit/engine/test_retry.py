"""How long to wait before the next try."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamml.engine.retry import Backoff


@given(st.integers(1, 1_000), st.floats(0.0, 1.0, exclude_max=True))
def test_e1_a_pause_doubles_up_to_a_bound_and_half_of_it_is_chance(attempt: int, random: float) -> None:
    """E1.2."""
    whole = min(5.0, 0.1 * 2.0 ** min(attempt - 1, 100))
    assert Backoff().delay(attempt, 0.0) == whole / 2
    assert whole / 2 <= Backoff().delay(attempt, random) <= whole
