"""Calls that hang, and what waits behind them."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress

import numpy as np
import pytest

from streamml.adapters.models.lanes import Lanes
from streamml.batch.column import Array
from streamml.errors import ModelBusy, ModelFault
from streamml.ports.model import PartialAnswer


class Hanging:
    """Does not answer until it is let go."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def __call__(self, inputs: Mapping[str, Array]) -> PartialAnswer:
        self.go_on.wait(60)
        return PartialAnswer({}, {})

    def close(self) -> None:
        self.go_on.set()


@pytest.fixture
def scorer() -> Iterator[Hanging]:
    made = Hanging()
    yield made
    made.close()


def test_b3_tries_behind_a_call_that_hangs_are_not_kept(scorer: Hanging) -> None:
    """B3.1: however long it hangs, only the rows that it was called with stay in memory."""
    lanes = Lanes("m@1", [scorer], timeout_s=0.02)
    tries: list[weakref.ref[Array]] = []
    for _ in range(5):
        part = np.zeros(10)
        tries.append(weakref.ref(part))
        with pytest.raises(ModelBusy, match="longer than its timeout"):
            lanes.answers([{"i": part}, {"i": part}], lambda now: 0.0)
        del part
    gc.collect()
    assert [one() is not None for one in tries] == [True, False, False, False, False]
    lanes.close()


def test_l2_worker_none_of_whose_calls_comes_back_ends(scorer: Hanging, monkeypatch: pytest.MonkeyPatch) -> None:
    """L2.1: a new one has threads that do not hang."""
    monkeypatch.setattr("streamml.adapters.models.lanes._HANGS_S", 0.1)
    lanes = Lanes("m@1", [scorer], timeout_s=0.02)
    with pytest.raises(ModelBusy):
        lanes.answers([{"i": np.zeros(1)}], lambda now: 0.0)
    with pytest.raises(ModelFault, match="a timeout of its own"):
        _asked_until_it_is_not_busy(lanes)
    lanes.close()


def test_lanes_answer_again_when_the_call_has_come_back(scorer: Hanging) -> None:
    lanes = Lanes("m@1", [scorer], timeout_s=0.02)
    with pytest.raises(ModelBusy):
        lanes.answers([{"i": np.zeros(1)}], lambda now: 0.0)
    scorer.go_on.set()
    _asked_until_it_is_not_busy(lanes)
    lanes.close()


def _asked_until_it_is_not_busy(lanes: Lanes) -> None:
    for _ in range(1000):
        with suppress(ModelBusy):
            lanes.answers([{"i": np.zeros(1)}], lambda now: 0.0)
            return
    pytest.fail("it is busy for ever")
