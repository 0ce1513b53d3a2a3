"""The histogram's percentiles and counts, against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamml.telemetry.latency import LatencyHistogram


@given(st.lists(st.floats(0.2, 1e8), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_at_most_a_bin_off(values: list[float], share: float) -> None:
    histogram = LatencyHistogram()
    histogram.add(np.array(values))
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    found = histogram.percentile(share)
    assert found is not None
    # Rows in the bin of the exact value, or in the one below where ranks tie by rounding.
    assert found == pytest.approx(exact, rel=0.11, abs=0.02)


def test_counts_below_a_bound_and_merging() -> None:
    one, other = LatencyHistogram(), LatencyHistogram()
    one.add(np.array([1.0, 5.0, 100.0]))
    other.add(np.array([-3.0, 2000.0]))
    one.merge(other.counts.tolist())
    assert one.total == 5
    assert [one.at_most(bound) for bound in (0.5, 10.0, 500.0, 1e5)] == [1, 3, 4, 5]


def test_no_rows_have_no_percentile() -> None:
    assert LatencyHistogram().percentile(0.5) is None
