"""The stream of the demo: departures from October on, what should become of each, and records that are none.

``python -m topologies.flight_delay.stream`` publishes them to the broker of the settings.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from confluent_kafka import Producer
from numpy.typing import NDArray

from streamml.adapters.kafka.client import opened
from streamml.settings.settings import Settings
from streamml.settings.sources import read_settings
from topologies.flight_delay.arrivals import WINDOW, Arrivals, as_of, recent_tables, ttl_of
from topologies.flight_delay.arrivals_topic import ARRIVALS, DEAD_LETTERS, check_topics
from topologies.flight_delay.data import Flights, load_flights, load_planes, load_weather, records, truth
from topologies.flight_delay.expected import Expected
from topologies.flight_delay.features import Table, all_tables, days_of
from topologies.flight_delay.topology import RECENT_SETS, airport_recent, model_inputs, topology

MONTHS: Final = (10, 11, 12)


@dataclass(frozen=True)
class Stream:
    """Departures in the order that they left.

    Args:
        flight_ids: one per event.
        keys, values: the records.
        expected: probability of being late that each should get while nobody writes recent arrivals: features joined and model run
            outside of any worker; ``[n]``.
        truth: minutes of delay on arrival by flight id.
        tables: loaded feature sets for the days of these events.
        arrivals: those that the recent values of these departures are made of, in the order of landing.
        departures: the same as columns.
    """

    flight_ids: list[str]
    keys: list[bytes]
    values: list[bytes]
    expected: NDArray[np.float32]
    truth: dict[str, float]
    tables: dict[str, Table]
    arrivals: Arrivals
    departures: Flights

    def __len__(self) -> int:
        return len(self.flight_ids)

    def is_right(self, event: int, prediction: Any) -> bool:
        """Whether a prediction is the one that this event should get."""
        same = prediction["flight_id"] == self.flight_ids[event]
        return bool(same and abs(prediction["late_probability"] - self.expected[event]) < 1e-4)

    def expected_with_recent(self) -> Expected:
        """The same while the features app follows the arrivals."""
        return Expected(self.departures, self.tables, self.arrivals)

    def with_fresh_values(self) -> dict[str, set[str]]:
        """By set of recent arrivals, the flights at whose departure something had landed lately enough for a fresh value."""
        left, tables, found = self.departures, recent_tables(self.arrivals), dict[str, set[str]]()
        for one in RECENT_SETS:
            place = as_of(tables[one.name], getattr(left, one.key[0]), left.departed_at, ttl_of(one))
            found[one.name] = set(left.flight_id[place >= 0].tolist())
        return found

    def arrivals_before(self) -> dict[int, list[tuple[bytes, bytes]]]:
        """Key and value of the arrivals that come before each departure, by its number; none for most."""
        places = np.searchsorted(self.departures.departed_at, self.arrivals.arrived_at, side="right")
        found: dict[int, list[tuple[bytes, bytes]]] = {}
        for place, record in zip(places.tolist(), self.arrivals.records(), strict=True):
            found.setdefault(place, []).append(record)
        return found

    def write_features(self, folder: Path) -> Iterator[tuple[str, Path]]:
        """Write each feature set as a Parquet file; name and path of each."""
        for name, table in self.tables.items():
            path = folder / f"{name}.parquet"
            table.write(path)
            yield name, path

    def write_broken_features(self, path: Path) -> str:
        """Write a feature set as a job would whose own source gave nothing: all zeros; the set's name."""
        table = self.tables["weather"]
        replace(table, columns={name: np.zeros_like(values) for name, values in table.columns.items()}).write(path)
        return "weather"


def prepare(count: int) -> Stream:
    """The first ``count`` departures of October to December; all of them where there are fewer (82,795)."""
    flights = load_flights()
    chosen = flights.in_months(MONTHS)
    chosen = chosen.take(np.arange(min(count, len(chosen))))
    tables = all_tables(days_of(chosen), flights, load_weather(), load_planes())
    pairs = list(records(MONTHS, chosen))
    return Stream(
        flight_ids=chosen.flight_id.tolist(),
        keys=[key for key, _ in pairs],
        values=[value for _, value in pairs],
        expected=expected_probabilities(chosen, tables),
        truth=truth(MONTHS, chosen),
        tables=tables,
        arrivals=arrivals_for(chosen, flights),
        departures=chosen,
    )


def arrivals_for(departures: Flights, flights: Flights) -> Arrivals:
    """Of these flights the arrivals that the recent values of these departures are made of: up to the last departure, from one window
    before what is fresh at the first."""
    landed = Arrivals.of(flights)
    if not len(departures):
        return landed.take(np.arange(0))
    first, last = departures.departed_at[[0, -1]]
    return landed.between(first - np.timedelta64(ttl_of(airport_recent) + WINDOW), last)


def expected_probabilities(flights: Flights, tables: dict[str, Table]) -> NDArray[np.float32]:
    """What the model says of these flights, without a worker: the join of training, and ONNX Runtime itself.

    Args:
        tables: by set; one whose table is not there gets its defaults.
    """
    from onnxruntime import InferenceSession

    from topologies.flight_delay.train import FOLDER, joined

    x = model_inputs(joined(flights, tables))["x"]
    answer: NDArray[np.float32] = InferenceSession(str(FOLDER / "model.onnx")).run(["probabilities"], {"x": x})[0][:, 1]
    return answer


def create_arrivals_topics(settings: Settings) -> str:
    """Make what the features app reads from and writes to; the topic of arrivals."""
    check_topics(settings, ARRIVALS, DEAD_LETTERS, create=True)
    return ARRIVALS


def poison(value: bytes, dice: random.Random) -> bytes:
    """A record like ``value`` that is no departure, in one of nine ways."""
    half = len(value) // 2
    ways = (
        b"",
        b"not json",
        value[:half],
        value.replace(b'"distance":', b'"distance":"far","was":'),
        value.replace(b'"carrier":', b'"carried":'),
        value.replace(b'"flight":', b'"flight":NaN,"was":'),
        value.replace(b'"flight":', b'"flight":123456789012345678901234567890,"was":'),
        value.replace(b"{", b'{"carrier":"XX",', 1),
        value[:half] + b"\xff\xfe" + value[half:],
    )
    return ways[dice.randrange(len(ways))]


def main() -> None:
    """Publish departures, the record's time being the moment of writing."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--events", type=int, default=82_795, help="how many; default: all of October to December")
    parser.add_argument("--rate", type=float, default=500.0, help="departures per second")
    parser.add_argument("--topic", default=topology.source.topics[0])
    arguments = parser.parse_args()
    settings = read_settings().settings
    chosen = load_flights().in_months(MONTHS)
    pairs = islice(records(MONTHS, chosen), arguments.events)
    producer = opened(Producer, {**settings.producer(), "linger.ms": 5})
    begun = time.monotonic()
    for number, (key, value) in enumerate(pairs):
        time.sleep(max(0.0, begun + number / arguments.rate - time.monotonic()))
        producer.produce(arguments.topic, value, key)
        producer.poll(0)
        if number % 5000 == 4999:
            print(f"{number + 1:,} departures")
    producer.flush(30)
    print("All departures are published.")


if __name__ == "__main__":
    main()
