"""Faults of the demo that come by themselves."""

from __future__ import annotations

import pytest

from streamml.errors import ConfigError
from streamml.ops.demo.faults import FAULTS, Script, faults_of


def test_faults_come_at_their_places_and_remedies_behind_them() -> None:
    script = Script(FAULTS)
    assert script.due(0.2) is None
    came = []
    while (due := script.due(1.0)) is not None:
        came.append(due)
        script.done()
    assert came == ["kill", "features", "app", "poison", "mend", "publish", "clean", "slow"]
    assert script.ended


def test_what_is_due_is_due_until_it_is_done() -> None:
    script = Script(("app", "kill"))
    assert script.due(0.3) == script.due(0.9) == "kill"
    script.done()
    assert script.due(0.3) is None
    script.end()
    assert script.ended


def test_a_fault_that_there_is_not_is_refused_and_one_that_is_named_twice_comes_once() -> None:
    with pytest.raises(ConfigError, match="flood is no fault"):
        faults_of(["kill", "flood"])
    assert faults_of(["app", "kill", "app"]) == ("app", "kill")
