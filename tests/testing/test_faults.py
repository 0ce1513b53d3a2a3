"""Topologies under faults in virtual time: what is lost is seen, and nothing is."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.sink import MemorySink
from streamml.ports.feature_store import FeatureSchema
from streamml.testing import TopologyDriver, faults
from streamml.testing.models import StandIn
from streamml.testing.report import Report
from tests.testing.shop import accounts, payment, payments, score
from topologies.flight_delay import stream
from topologies.flight_delay.topology import FEATURE_SETS
from topologies.flight_delay.topology import topology as flight_delay

Guarantee = Literal["at_least_once", "exactly_once"]
GUARANTEES: list[Guarantee] = ["at_least_once", "exactly_once"]
EVERYTHING: list[faults.Fault] = [
    faults.Kill(every="500ms"),
    faults.SessionLost(every="700ms"),
    faults.Rebalance(every="800ms", lasts="300ms"),
    faults.BrokerDown(every="900ms", lasts="200ms"),
    faults.FeaturesDown(every="900ms", lasts="200ms"),
    faults.SlowModel("20ms"),
    faults.OutOfMemory(16),
    faults.ModelRaises(0.02),
    faults.Poison(0.02),
    faults.RefusedRecords(0.02),
]


def shop(
    found: list[faults.Fault],
    guarantee: Guarantee = "at_least_once",
    seed: int = 1,
    model: StandIn = score,
    events: int = 1500,
) -> Report:
    return faults.run(
        payments(),
        [payment(number, amount=number % 50, account=("ann", "bob")[number % 2]) for number in range(events)],
        found,
        seed=seed,
        guarantee=guarantee,
        models={"fraud": model},
        prepare=lambda driver: driver.features(accounts, {"ann": {"mean": 5.0}}),
    )


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_d1_d2_d4_everything_at_once_loses_nothing_of_the_shop(guarantee: Guarantee) -> None:
    """D1.2, D2.2, D4.1."""
    report = shop(EVERYTHING, guarantee)
    report.assert_nothing_lost()
    assert report.produced == report.predicted + report.dead_lettered + report.filtered > 1500
    assert min(report.dead_lettered, report.filtered) > 0
    assert (report.duplicated > 0) == (guarantee == "at_least_once")
    assert set(report.strikes) == {"Kill", "SessionLost", "Rebalance", "BrokerDown", "FeaturesDown"}


def test_the_same_seed_gives_the_same_report_and_another_one_does_not() -> None:
    first, again, other = (shop(EVERYTHING, seed=seed, events=500) for seed in (3, 3, 4))
    assert first == again != other


def put(driver: TopologyDriver, sample: stream.Stream) -> None:
    """Load the features of the flights; nobody writes the sets of recent arrivals."""
    for one in FEATURE_SETS:
        if one.kind == "streaming":
            continue
        table = sample.tables[one.name]
        keys: list[Any] = list(zip(*(table.key[part].tolist() for part in one.key), strict=True))
        values = [dict(zip(table.columns, row, strict=True)) for row in zip(*table.columns.values(), strict=True)]
        times: dict[Any, Any] = dict(zip(keys, table.event_time.astype("M8[us]").astype(int).tolist(), strict=True))
        schema = FeatureSchema(one.name, tuple(one.columns.items()))
        driver.store.load(schema, dict(zip(keys, values, strict=True)), times)


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_d1_d2_d4_flights_under_faults_are_scored_as_without_them(guarantee: Guarantee) -> None:
    """D1.2, D2.2, D4.1."""
    sample = stream.prepare(1200)
    report = faults.run(
        flight_delay,
        sample.values,
        [faults.Kill(every="400ms"), faults.Rebalance(every="600ms", lasts="200ms"), faults.Poison(0.01)],
        seed=5,
        guarantee=guarantee,
        repository="topologies/flight_delay/models",
        prepare=lambda driver: put(driver, sample),
    )
    report.assert_nothing_lost()
    assert report.predicted == 1200
    assert report.dead_lettered == report.produced - 1200 > 0


def test_what_a_sink_loses_and_doubles_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, brokers = MemorySink._take, list[MemoryBroker]()

    def careless(self: MemorySink, topic: str, record: Any) -> None:
        """In the run without faults, which is the first, all is well."""
        brokers.append(self._broker)
        struck = self._broker is not brokers[0]
        for _ in range({b"p1401": 0, b"p1402": 2}.get(record.key, 1) if struck else 1):
            stored(self, topic, record)

    monkeypatch.setattr(MemorySink, "_take", careless)
    report = shop([])
    assert (report.lost, report.wrong, report.out_of_order) == (1, 0, 0)
    assert report.duplicated == 1
    with pytest.raises(AssertionError, match=r"payments/\d/\d+ was lost"):
        report.assert_nothing_lost()


def test_a_model_whose_answer_depends_on_the_batch_is_wrong() -> None:
    def beside_the_others(tensors: Any) -> Any:
        return {"score": tensors["x"][:, 0] + tensors["x"][:, 0].sum()}

    report = shop([faults.OutOfMemory(3)], model=beside_the_others)
    assert report.wrong > 100
    assert report.lost == 0
