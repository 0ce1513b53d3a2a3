"""E1, E2, M5: what can go wrong is told apart by what happens next, on a real model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

import streamml as sm
from streamml.adapters.memory.feature_store import MemoryFeatureStore
from streamml.adapters.memory.model import FunctionModel
from streamml.adapters.models.onnx import OnnxModel
from streamml.batch.column import Array
from streamml.errors import ModelFault
from streamml.ports.feature_store import FeatureReply, FeatureRequest
from streamml.ports.model import Signature, Tensor
from streamml.testing import TopologyDriver
from tests.conformance.onnx_files import graph, hungry, node, store, value
from tests.testing.shop import Payment, Verdict, accounts, payment, payments, score

MOST_ROWS = 8


@pytest.fixture
def scored(tmp_path: Path) -> TopologyDriver:
    """By a model on ONNX Runtime that has memory for `MOST_ROWS` rows."""
    made = TopologyDriver(payments(), models={"fraud": OnnxModel.load(store(tmp_path, hungry(MOST_ROWS), "fraud"))})
    made.features(accounts, {"ann": {"mean": 5.0}})
    return made


def test_e2_m5_rows_that_are_refused_and_rows_that_never_fit_are_dead_letters_of_their_own(
    scored: TopologyDriver,
) -> None:
    """E2.1, M5.1, M5.3."""
    amounts = [float(n) for n in range(20, 120)]
    amounts[30], amounts[31], amounts[70] = 13.0, 2e6, 13.0
    ids = [scored.send(payment(n, amount)) for n, amount in enumerate(amounts)]
    scored.settle()
    letters = {letter.id: letter.error for letter in scored.dead_letters()}
    assert letters == {ids[30]: "ModelRejected", ids[31]: "ModelOutOfMemory", ids[70]: "ModelRejected"}
    scores = [prediction.value["score"] for prediction in scored.predictions()]
    assert scores == [amount for n, amount in enumerate(amounts) if n not in (30, 31, 70)]
    assert scored.statistics.retries == 0


def test_e1_a_fault_of_the_model_stops_the_worker_and_fails_no_row(tmp_path: Path) -> None:
    """E1.3."""
    one_answer = graph(
        [node("ReduceSum", ["x"], ["score"], keepdims=1)],
        [value("x", "float32", ["rows", 2])],
        [value("score", "float32", ["rows", "one"])],
    )
    made = TopologyDriver(payments(), models={"fraud": OnnxModel.load(store(tmp_path, one_answer, "fraud"))})
    made.features(accounts, {"ann": {"mean": 5.0}})
    for number in range(5):
        made.send(payment(number))
    with pytest.raises(ModelFault, match="has 1 rows instead of 5"):
        made.settle()
    assert (made.predictions(), made.dead_letters()) == ([], [])
    assert set(made.commits().values()) == {0}


def test_e1_a_model_that_raises_for_every_row_is_dead_letters_up_to_the_limit() -> None:
    def broken(tensors: Mapping[str, Array]) -> Mapping[str, Array]:
        raise ValueError("always")

    made = TopologyDriver(payments(), models={"fraud": broken})
    made.features(accounts, {"ann": {"mean": 5.0}})
    for number in range(100):
        made.send(payment(number))
    made.settle()
    assert Counter(letter.error for letter in made.dead_letters()) == {"ModelRejected": 100}


def test_m5_a_batch_that_does_not_fit_is_halved_once_and_the_next_ones_come_in_parts() -> None:
    """M5.1, M5.2."""
    calls: list[int] = []

    def small(tensors: Mapping[str, Array]) -> Mapping[str, Array]:
        calls.append(len(tensors["x"]))
        if calls[-1] > MOST_ROWS:
            raise MemoryError
        return score(tensors)

    tensors = Signature({"x": Tensor("float32", (2,))}, {"score": Tensor("float32", ())})
    made = TopologyDriver(payments(), models={"fraud": FunctionModel("fraud", "1", tensors, small)})
    made.features(accounts, {"ann": {"mean": 5.0}})
    for number in range(64):
        made.send(payment(number))
    made.settle()
    assert max(calls) == 64
    calls.clear()
    for number in range(64):
        made.send(payment(number))
    made.settle()
    assert calls == [MOST_ROWS] * 8
    assert np.mean([prediction.value["score"] for prediction in made.predictions()]) == 4.0


class Counted(MemoryFeatureStore):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def lookup(self, requests: Sequence[FeatureRequest]) -> list[FeatureReply]:
        self.asked += 1
        return super().lookup(requests)


def limits(name: str = "limits", **policy: object) -> sm.FeatureSet:
    columns = {"most": sm.f4(default=100.0)}
    return sm.FeatureSet(name, key="account", columns=columns, max_default_ratio=1.0, **policy)  # type: ignore[arg-type]


def two_lookups(first: sm.FeatureSet, second: sm.FeatureSet) -> sm.Topology:
    """Two stages that need the store, and one that does not."""
    return sm.Topology(
        "payments",
        source=sm.Source("payments", schema=Payment, start="earliest"),
        steps=[
            sm.FeatureLookup(first),
            sm.Transform(lambda c: {"x": c["amount"]}, inputs=("amount",), outputs={"x": "f8"}, name="x"),
            sm.Onnx("fraud", outputs={"score": "score"}),
            sm.FeatureLookup(second),
        ],
        sink=sm.Sink("verdicts", schema=Verdict, key="id"),
        dead_letters=sm.DeadLetterQueue("payments.dlq", max_ratio=1.0),
    )


def same(tensors: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"score": tensors["x"]}


def counted(topology: sm.Topology) -> tuple[TopologyDriver, Counted]:
    store = Counted()
    made = TopologyDriver(topology, models={"fraud": same}, features=store, service_time={"fraud": lambda rows: 0.5})
    made.features(accounts, {"ann": {"mean": 5.0}})
    for name in ("limits", "others"):
        made.features(limits(name), {"ann": {"most": 7.0}})
    return made, store


def test_e1_an_outage_stops_the_stages_that_need_it_and_hammers_nothing() -> None:
    """E1.2, E1.5."""
    run, store = counted(two_lookups(accounts, limits()))
    run.send(payment(1))
    run.advance("100ms")
    store.fail("Redis is away.")
    store.asked = 0
    run.send(payment(2))
    run.advance("60s")
    # The first row was scored meanwhile, and waits for the second lookup; both stages wait for one breaker.
    assert run.batch_rows("fraud") == (1,)
    assert run.predictions() == []
    assert 10 <= store.asked <= 3 + 2 + 60 / 5
    store.recover()
    run.advance("6s")
    assert len(run.predictions()) == 2
    assert run.dead_letters() == []


def test_f2_while_the_breaker_is_open_defaults_come_at_once() -> None:
    """F2.4."""
    optional = [limits(name, if_unavailable="default") for name in ("limits", "others")]
    run, store = counted(two_lookups(*optional))
    store.fail("Redis is away.")
    store.asked = 0
    for number in range(200):
        run.send(payment(number))
        run.advance("50ms")
    run.settle()
    assert store.asked <= 3 + 2 + 10 / 5
    flags = Counter(prediction.flags for prediction in run.predictions())
    assert flags == {("limits:unavailable", "others:unavailable"): 200}
    store.recover()
    run.advance("6s")
    run.send(payment(200))
    run.settle()
    assert run.predictions()[-1].flags == ("limits@v1", "others@v1")
