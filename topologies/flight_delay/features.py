"""What is known of routes, carriers, aircraft and the weather before a flight leaves: ``python -m topologies.flight_delay.features``.

Daily sets hold, for each entity and each day, what flights that had arrived before that day began in New York say about it: mean
arrival delay and share of late arrivals in the 60 days before, drawn towards the mean of all flights by 20 flights' weight, so that an
entity with few flights says little. The weather of an hour is the observation of the hour before, which had ended.

Serving reads these tables from Redis, training joins the very same tables; nothing is computed twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from topologies.flight_delay.data import (
    LATE_MINUTES,
    Flights,
    Instants,
    Planes,
    Text,
    Weather,
    day_key,
    hour_key,
    load_flights,
    load_planes,
    load_weather,
    months_of,
)
from topologies.flight_delay.localtime import local_time, utc_of_midnight

WINDOW_DAYS: Final = 60
PRIOR_FLIGHTS: Final = 20.0
WEATHER: Final = ("temp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")
_DAY: Final = np.timedelta64(1, "D")
_HOUR: Final = np.timedelta64(1, "h")

Days = NDArray[np.datetime64]


@dataclass(frozen=True)
class Table:
    """One feature set: rows of key columns, the time that each row describes, and values (float32)."""

    key: Mapping[str, Text]
    event_time: Instants
    columns: Mapping[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.event_time)

    def write(self, path: Path) -> None:
        """Write as Parquet, one column per key part, ``event_time``, and one per value."""
        import pyarrow as pa
        from pyarrow import parquet

        columns: dict[str, Any] = {name: pa.array(values.tolist(), pa.string()) for name, values in self.key.items()}
        columns["event_time"] = pa.array(self.event_time.astype("datetime64[us]"))
        columns |= {name: pa.array(values) for name, values in self.columns.items()}
        parquet.write_table(pa.table(columns), path)


def days_of(flights: Flights) -> Days:
    """Every date on which one of these flights left, in order."""
    return np.unique(flights.day)


def route_table(flights: Flights, days: Days) -> Table:
    """Delays by origin and destination, as of the start of each day."""
    return _daily(flights, days, {"origin": flights.origin, "dest": flights.dest})


def carrier_table(flights: Flights, days: Days) -> Table:
    """Delays by carrier, as of the start of each day."""
    return _daily(flights, days, {"carrier": flights.carrier})


def aircraft_table(flights: Flights, days: Days, planes: Planes) -> Table:
    """Delays by aircraft, as of the start of each day, and its seats and year of construction; only of those that flew lately."""
    table = _daily(flights, days, {"tailnum": flights.tailnum})
    register = {tail: row for row, tail in enumerate(planes.tailnum.tolist())}
    rows = np.array([register.get(tail, -1) for tail in table.key["tailnum"].tolist()])
    seats, built = (_known(values[rows], rows >= 0) for values in (planes.seats, planes.year_built))
    return Table(table.key, table.event_time, {**table.columns, "seats": seats, "year_built": built})


def weather_table(weather: Weather, days: Days) -> Table:
    """Weather by origin and hour: what was observed in the hour before."""
    hours: Days = np.arange(days.min() - _DAY, days.max() + 2 * _DAY, _HOUR, dtype="datetime64[h]")
    origins = sorted(set(weather.origin.tolist()))
    columns: dict[str, list[NDArray[np.float32]]] = {name: [] for name in WEATHER}
    for origin in origins:
        rows = weather.origin == origin
        observed = weather.hour[rows].astype("datetime64[h]")
        for name in WEATHER:
            columns[name].append(_last_known(observed, weather.values[name][rows], hours - _HOUR))
    key = {
        "origin": np.repeat(np.array(origins, dtype=object), len(hours)),
        "hour": np.tile(hour_key(hours.astype("datetime64[us]")), len(origins)),
    }
    event_time = np.tile(hours.astype("datetime64[us]"), len(origins))
    return Table(key, event_time, {name: np.concatenate(parts) for name, parts in columns.items()})


def all_tables(days: Days, flights: Flights, weather: Weather, planes: Planes) -> dict[str, Table]:
    """Every set by name, for these days."""
    return {
        "route": route_table(flights, days),
        "carrier": carrier_table(flights, days),
        "aircraft": aircraft_table(flights, days, planes),
        "weather": weather_table(weather, days),
    }


def _daily(flights: Flights, days: Days, key: Mapping[str, Text]) -> Table:
    codes, names = _encoded(list(key.values()))
    known = ~np.isnan(flights.arrival_delay)
    first = days.min() - (WINDOW_DAYS + 1) * _DAY
    # A flight counts from the day after the New York date of its arrival: it had arrived when that day began.
    counts_from = np.zeros(len(flights), np.int64)
    counts_from[known] = (local_time(flights.arrived_at[known]).astype("datetime64[D]") + _DAY - first).astype(np.int64)
    span = int((days.max() - first).astype(np.int64)) + 1
    used = known & (counts_from >= 0) & (counts_from < span)
    delay = flights.arrival_delay[used].astype(np.float64)
    facts = (np.ones(len(delay)), delay, (delay >= LATE_MINUTES).astype(np.float64))
    offsets = (days - first).astype(np.int64)
    by_entity = [_windowed(fact, codes[used], counts_from[used], len(names), span)[:, offsets] for fact in facts]
    overall = [_windowed(fact, np.zeros(len(delay), int), counts_from[used], 1, span)[:, offsets] for fact in facts]
    count = by_entity[0]
    active = count > 0
    prior = [total / np.maximum(overall[0], 1.0) for total in overall[1:]]
    means = [(s + PRIOR_FLIGHTS * p) / (count + PRIOR_FLIGHTS) for s, p in zip(by_entity[1:], prior, strict=True)]
    entity, day = np.nonzero(active)
    parts = {
        part: np.array([names[row][place] for row in entity.tolist()], dtype=object) for place, part in enumerate(key)
    }
    values = (("flights", count), ("mean_delay", means[0]), ("late_share", means[1]))
    return Table(
        {**parts, "day": day_key(days)[day]},
        utc_of_midnight(days)[day],
        {name: column[active].astype(np.float32) for name, column in values},
    )


def _windowed(fact: NDArray[Any], entity: NDArray[Any], day: NDArray[Any], entities: int, span: int) -> NDArray[Any]:
    """Sums by entity and day over what counts in the 60 days up to that day; ``[entities, span]``."""
    daily = np.bincount(entity * span + day, weights=fact, minlength=entities * span).reshape(entities, span)
    total = np.cumsum(daily, axis=1)
    past = np.zeros_like(total)
    past[:, WINDOW_DAYS:] = total[:, :-WINDOW_DAYS]
    return total - past


def _encoded(columns: list[Text]) -> tuple[NDArray[np.int64], list[tuple[str, ...]]]:
    """Each row's entity as a number, and the entities."""
    places: dict[tuple[str, ...], int] = {}
    rows = zip(*(column.tolist() for column in columns), strict=True)
    codes = np.array([places.setdefault(row, len(places)) for row in rows], np.int64)
    return codes, list(places)


def _known(values: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Values, 0 where unknown: zero seats says so to the model."""
    return np.where(known & ~np.isnan(values), values, np.float32(0)).astype(np.float32)


def _last_known(observed: Days, values: NDArray[np.float32], wanted: Days) -> NDArray[np.float32]:
    """The last value that was reported at or before each wanted hour, -1 where there is none."""
    reported = ~np.isnan(values)
    order = np.argsort(observed[reported], kind="stable")
    hours, known = observed[reported][order], values[reported][order]
    place = np.searchsorted(hours, wanted, side="right") - 1
    return np.where(place >= 0, known[np.maximum(place, 0)] if len(known) else -1.0, -1.0).astype(np.float32)


def main() -> None:
    """Write one Parquet file per set."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for <set>.parquet")
    parser.add_argument("--months", default="10-12", help="months whose days get rows (default: 10-12)")
    arguments = parser.parse_args()
    flights = load_flights()
    days = days_of(flights.in_months(months_of(arguments.months)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, table in all_tables(days, flights, load_weather(), load_planes()).items():
        table.write(arguments.out / f"{name}.parquet")
        print(f"{name}: {len(table):,} rows in {arguments.out / name}.parquet")


if __name__ == "__main__":
    main()
