"""The flights: no feature knows the future, serving sees what training saw, and the model beats its baseline."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamml.adapters.codecs.json import json_decoder
from streamml.batch.column import object_array
from streamml.ports.feature_log import LoggedRows
from streamml.schema.contract import Contract
from streamml.topology.check import problems
from topologies.flight_delay import arrivals, features, quality, stream, train
from topologies.flight_delay.data import Flights, load_flights, load_planes, load_weather, records
from topologies.flight_delay.localtime import utc_of_midnight
from topologies.flight_delay.topology import FEATURE_SETS, RECENT, RECENT_SETS, Departure, model_inputs, topology

CUT = np.datetime64("2013-10-15", "D")
MODEL = Path(train.FOLDER)


@pytest.fixture(scope="module")
def flights() -> Flights:
    return load_flights()


@pytest.fixture(scope="module")
def sample() -> stream.Stream:
    return stream.prepare(3000)


def tables(flights: Flights) -> dict[str, features.Table]:
    days = np.array(["2013-10-12", "2013-10-13", "2013-10-14", "2013-10-15"], "M8[D]")
    return {
        "route": features.route_table(flights, days),
        "carrier": features.carrier_table(flights, days),
        "aircraft": features.aircraft_table(flights, days, load_planes()),
    }


def same(one: features.Table, other: features.Table) -> bool:
    keys = all(one.key[name].tolist() == other.key[name].tolist() for name in one.key)
    return keys and all(one.columns[name].tobytes() == other.columns[name].tobytes() for name in one.columns)


def delayed(flights: Flights, rows: np.ndarray) -> Flights:
    """The same flights, those at ``rows`` three hours later on arrival."""
    return replace(flights, arrival_delay=np.where(rows, flights.arrival_delay + 180, flights.arrival_delay))


def test_no_feature_uses_a_flight_that_arrived_after_its_cut(flights: Flights) -> None:
    cut = utc_of_midnight(np.array([CUT]))[0]
    after = flights.arrived_at >= cut
    before = tables(flights)
    changed = tables(delayed(flights, after))
    gone = tables(flights.take(~after))
    for name in before:
        assert same(before[name], changed[name]), name
        assert same(before[name], gone[name]), name


def test_a_flight_that_arrived_just_before_the_cut_counts(flights: Flights) -> None:
    cut = utc_of_midnight(np.array([CUT]))[0]
    last_hour = (flights.arrived_at >= cut - np.timedelta64(1, "h")) & (flights.arrived_at < cut)
    assert last_hour.any()
    before, changed = tables(flights), tables(delayed(flights, last_hour))
    assert all(not same(before[name], changed[name]) for name in before)


def test_recent_values_know_nothing_that_landed_after_the_departure(flights: Flights) -> None:
    """What landed later may have been as late as it likes, or not have landed at all."""
    moment = np.datetime64("2013-10-15T18:00", "us")
    chosen = flights.take((flights.departed_at > moment - np.timedelta64(6, "h")) & (flights.departed_at <= moment))
    later = flights.arrived_at > moment
    with_future, changed, gone = (
        train.joined(chosen, arrivals.recent_tables(arrivals.Arrivals.of(others)))
        for others in (flights, delayed(flights, later), flights.take(~later))
    )
    for declared in RECENT_SETS:
        for name in declared.outputs:
            assert with_future[name].tobytes() == changed[name].tobytes() == gone[name].tobytes(), name
        assert (with_future[f"{declared.name}.landings"] > 0).mean() > 0.5


def test_a_flight_that_landed_at_the_moment_of_departure_counts_and_one_a_minute_later_does_not(
    flights: Flights,
) -> None:
    landed = arrivals.Arrivals.of(flights)
    place = len(landed) * 4 // 5
    minute = np.timedelta64(1, "m")
    at = landed.arrived_at[place] + np.array([-minute, np.timedelta64(0, "m")])
    table = arrivals.recent_table(landed, "dest")
    told = arrivals.as_of(table, landed.dest[[place, place]], at, arrivals.ttl_of(RECENT_SETS[0]))
    assert table.event_time[told[1]] == landed.arrived_at[place]
    assert told[0] < 0 or table.event_time[told[0]] < landed.arrived_at[place]


def test_the_arrivals_of_the_stream_give_the_recent_values_that_all_arrivals_give(flights: Flights) -> None:
    chosen = flights.in_months((10,)).take(np.arange(2000))
    some, every = (
        train.joined(chosen, arrivals.recent_tables(given))
        for given in (stream.arrivals_for(chosen, flights), arrivals.Arrivals.of(flights))
    )
    for name in (name for declared in RECENT_SETS for name in declared.outputs):
        assert some[name].tobytes() == every[name].tobytes()


def test_the_weather_of_an_hour_is_what_was_observed_before_it() -> None:
    weather = load_weather()
    hour = np.datetime64("2013-10-15T15", "h")
    later = weather.hour.astype("datetime64[h]") >= hour
    stormy = replace(weather, values={name: np.where(later, 99.0, values) for name, values in weather.values.items()})
    days = np.array([CUT])
    calm, storm = features.weather_table(weather, days), features.weather_table(stormy, days)
    known = calm.event_time <= hour
    for name in features.WEATHER:
        assert (calm.columns[name][known] == storm.columns[name][known]).all()
        assert (calm.columns[name][~known] != storm.columns[name][~known]).any()


def test_what_a_worker_decodes_and_joins_is_what_training_saw(flights: Flights) -> None:
    chosen = flights.in_months((10,)).take(np.arange(500))
    made = features.all_tables(features.days_of(chosen), flights, load_weather(), load_planes())
    made |= arrivals.recent_tables(arrivals.Arrivals.of(flights))
    trained = model_inputs(train.joined(chosen, made))
    contract = Contract.of(Departure)
    values = [value for _, value in records((10,), chosen)]
    decoded = json_decoder(contract, columns=frozenset(contract.columns)).decode(object_array(values, len(values)))
    served = dict(decoded.columns)
    joined = train.joined(chosen, made)
    served |= {name: joined[name] for one in FEATURE_SETS for name in one.outputs}
    again = model_inputs(served)
    assert not decoded.failed
    assert again["x"].tobytes() == trained["x"].tobytes()


def test_the_topology_has_no_problem() -> None:
    assert problems(topology) == []


def test_the_committed_figures_are_better_than_the_baseline_and_true_of_the_stream(sample: stream.Stream) -> None:
    import tomllib

    metrics = tomllib.loads((MODEL / "model.toml").read_text())["metrics"]
    assert metrics["auc"] > metrics["baseline_auc"]
    assert metrics["brier"] < metrics["baseline_brier"]
    assert metrics["auc"] > metrics["without_recent_auc"] > metrics["baseline_auc"]
    assert metrics["recent_defaulted_auc"] > metrics["baseline_auc"]
    assert (MODEL / "model.onnx").stat().st_size < 2_000_000


def test_quality_is_what_a_loop_over_all_pairs_says() -> None:
    dice = np.random.default_rng(5)
    scores, late = dice.integers(0, 20, 200) / 20, dice.random(200) < 0.3
    pairs = [(a, b) for a in scores[late] for b in scores[~late]]
    expected = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])
    assert quality.auc(scores, late) == pytest.approx(expected)
    assert quality.brier(np.array([0.5, 1.0]), np.array([True, False])) == pytest.approx(0.625)


def test_quality_leaves_diverted_flights_out_and_knows_its_baseline(sample: stream.Stream) -> None:
    judged = quality.Quality(sample.truth)
    judged.add(
        [
            {"flight_id": id, "late_probability": float(chance), "departure_delay": 0.0}
            for id, chance in zip(sample.flight_ids, sample.expected, strict=True)
        ]
    )
    figures = judged.figures()
    assert figures["flights"] == len(sample.truth) < len(sample)
    assert figures["auc"] > 0.8
    assert figures["baseline_auc"] == 0.5


def test_quality_can_be_asked_in_the_middle_of_an_addition() -> None:
    judged = quality.Quality({"a": 20.0, "b": 0.0})

    class Asked(dict[str, float | str]):
        """A prediction whose reading is interrupted by whoever wants the figures."""

        def __getitem__(self, name: str) -> float | str:
            seen.append(judged.figures()["flights"])
            return super().__getitem__(name)

    seen: list[int] = []
    for id, chance in (("a", 0.9), ("b", 0.1)):
        judged.add([Asked(flight_id=id, late_probability=chance, departure_delay=3.0)])
    assert set(seen) == {0, 1}
    assert judged.figures() | {"flights": 2, "auc": 1.0, "brier": 0.01, "baseline_auc": 0.5} == judged.figures()


def test_poison_is_no_departure_in_every_way(sample: stream.Stream) -> None:
    dice = random.Random(1)
    contract = Contract.of(Departure)
    decoder = json_decoder(contract, columns=frozenset(contract.columns))
    bad = list({stream.poison(sample.values[0], dice) for _ in range(200)})
    assert len(bad) == 9
    assert len(decoder.decode(object_array(bad, 9)).failed) == 9
    assert json.loads(sample.values[0])["flight_id"] == sample.flight_ids[0]


@pytest.fixture(scope="module")
def fresh(sample: stream.Stream) -> tuple[list[int], dict[str, np.ndarray], np.ndarray]:
    """Departures with two fresh recent values, what the log says of them, and what the model does."""
    tables = arrivals.recent_tables(sample.arrivals)
    departures, at = sample.departures, sample.departures.departed_at
    places = [
        arrivals.as_of(tables[one.name], getattr(departures, one.key[0]), at, arrivals.ttl_of(one))
        for one in RECENT_SETS
    ]
    rows = np.flatnonzero((places[0] >= 0) & (places[1] >= 0))[-200:]
    joined = train.joined(departures.take(rows), {**sample.tables, **tables})
    columns = {name: joined[name] for one in FEATURE_SETS for name in one.outputs}
    return rows.tolist(), columns, probabilities(model_inputs(joined)["x"])


def probabilities(x: np.ndarray) -> np.ndarray:
    from onnxruntime import InferenceSession

    found: np.ndarray = InferenceSession(str(MODEL / "model.onnx")).run(["probabilities"], {"x": x})[0][:, 1]
    return found


USED = "airport_recent@live-1,carrier_recent@live-1,route@v1"
STALE = "airport_recent@live-1:stale,carrier_recent:unavailable,route@v1"


def logged(columns: dict[str, np.ndarray], flags: str) -> LoggedRows:
    count = len(next(iter(columns.values())))
    return LoggedRows(np.arange(count), None, np.zeros(count, np.int64), (flags,), columns)


def test_a_prediction_is_right_that_the_model_makes_of_what_the_log_says(
    sample: stream.Stream, fresh: tuple[list[int], dict[str, np.ndarray], np.ndarray]
) -> None:
    rows, columns, answers = fresh
    expected = sample.expected_with_recent()
    event, answer = rows[0], float(answers[0])
    assert expected.is_right(event, answer, USED, unlogged=False) is None
    expected.logged(np.array(rows), logged(columns, USED))
    assert all(expected.is_right(*one, USED, unlogged=False) for one in zip(rows, answers.tolist(), strict=True))
    assert expected.is_right(event, answer + 0.01, USED, unlogged=False) is False
    # With the defaults instead, which it does not say.
    differs = int(np.argmax(np.abs(answers - sample.expected[rows])))
    assert not expected.is_right(rows[differs], float(sample.expected[rows[differs]]), USED, unlogged=False)


def test_recent_values_of_the_future_or_of_nobody_are_wrong_and_flagged_defaults_are_right(
    sample: stream.Stream, fresh: tuple[list[int], dict[str, np.ndarray], np.ndarray]
) -> None:
    rows, columns, answers = fresh
    event, expected = rows[0], sample.expected_with_recent()
    wrong = {name: values[:1] + (name == "airport_recent.mean_delay") for name, values in columns.items()}
    expected.logged(np.array([event]), logged(wrong, USED))
    assert expected.is_right(event, float(answers[0]), USED, unlogged=False) is False
    default = float(sample.expected[event])
    defaults = {
        f"{one.name}.{name}": np.array([declared.default], "f4")
        for one in RECENT_SETS
        for name, declared in RECENT.items()
    }
    first = {name: values[:1] for name, values in columns.items()}
    expected.logged(np.array([event]), logged({**first, **defaults}, STALE))
    assert expected.is_right(event, default, STALE, unlogged=False)
    early = sample.expected_with_recent()
    later = {name: values[-1:] for name, values in columns.items()}
    early.logged(np.array(rows[:1]), logged(later, USED))
    assert early.is_right(event, float(answers[-1]), USED, unlogged=False) is False


def test_a_prediction_that_was_never_logged_may_use_any_value_of_then_and_no_other(
    sample: stream.Stream, fresh: tuple[list[int], dict[str, np.ndarray], np.ndarray]
) -> None:
    rows, _, answers = fresh
    expected = sample.expected_with_recent()
    for event, answer in zip(rows[:20], answers[:20].tolist(), strict=True):
        assert expected.is_right(event, answer, USED, unlogged=True)
        assert not expected.is_right(event, answer + 0.5, USED, unlogged=True)
        assert expected.is_right(event, float(sample.expected[event]), STALE, unlogged=True)


def test_every_arrival_goes_out_before_the_departures_that_may_know_of_it(sample: stream.Stream) -> None:
    before = sample.arrivals_before()
    departed = sample.departures.departed_at
    landed = [json.loads(value)["arrived_at"] for place in sorted(before) for _, value in before[place]]
    assert landed == [event["arrived_at"] for event in sample.arrivals.events()]
    for place, records_ in before.items():
        times = np.array([json.loads(value)["arrived_at"].rstrip("Z") for _, value in records_], "M8[s]")
        assert (times >= departed[place - 1]).all() or place == 0
        assert place == len(sample) or (times < departed[place]).all()
