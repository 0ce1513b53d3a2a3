"""Options of `replay diff` and `replay publish`."""

from __future__ import annotations

import click
import pytest

from streamml.cli.options import FiniteRange
from streamml.cli.replay_diff import parsed_thresholds
from streamml.cli.replay_publish import parsed_rate


@pytest.mark.parametrize(("text", "rate"), [("500/s", 500), ("0.5", 0.5), (" 20/s ", 20), (None, None)])
def test_a_rate_is_read(text: str | None, rate: float | None) -> None:
    assert parsed_rate(text) == rate


@pytest.mark.parametrize("text", ["0/s", "-1", "5/m", "", "1e3", "inf"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError, match="no rate"):
        parsed_rate(text)


def test_thresholds_are_read() -> None:
    assert parsed_thresholds(("risk=0.5", "a=b=-2e3")) == {"risk": 0.5, "a=b": -2000}


@pytest.mark.parametrize("text", ["risk", "=1", "risk=high", ""])
def test_what_is_no_threshold_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError, match="FIELD=NUMBER"):
        parsed_thresholds((text,))


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_what_is_on_neither_side_of_a_bound_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        FiniteRange(0).convert(text, None, None)
    assert FiniteRange(0).convert("0.5", None, None) == 0.5
