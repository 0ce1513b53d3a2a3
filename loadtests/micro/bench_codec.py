"""Microseconds per record of the JSON codec: ``python loadtests/micro/bench_codec.py [--rows N] [--json]``.

Every figure is the median of many repetitions over one batch, on one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from streamml.adapters.codecs.json import json_decoder, json_encoder
from streamml.batch.column import Array, object_array
from streamml.schema.contract import Contract

START = datetime(2013, 1, 1, tzinfo=UTC)


class Departure(BaseModel):
    """Ten required fields: five texts, a time, two integers, two floats."""

    flight_id: str
    carrier: str
    origin: str
    dest: str
    tail: str
    departed_at: datetime
    distance: int
    scheduled: int
    delay: float
    temperature: float


class Sparse(Departure):
    """The same with two fields that may be absent or null."""

    gate: str | None = None
    wind: float | None = None


class Prediction(BaseModel):
    """Five fields, two of them bounded probabilities."""

    flight_id: str
    carrier: str
    predicted_at: datetime
    late: float = Field(ge=0, le=1)
    delay: float


class Coded(Prediction):
    """A rule that only the written record can be checked against."""

    carrier: str = Field(pattern="^[A-Z]{2}$")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=31)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    cases = {**decode_cases(asked.rows), **encode_cases(asked.rows)}
    figures = {name: round(median(run, asked.repeat) / asked.rows, 3) for name, run in cases.items()}
    if asked.json:
        print(json.dumps({"rows": asked.rows, "us_per_record": figures}))
        return
    for name, figure in figures.items():
        print(f"{name:58s} {figure:7.3f} µs/record")


def median(run: Callable[[], object], repeat: int) -> float:
    """Median microseconds of one run."""
    run()
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        run()
        taken.append((time.perf_counter() - started) * 1e6)
    return statistics.median(taken)


def event(number: int, **added: object) -> dict[str, Any]:
    """One departure as Python values."""
    return {
        "flight_id": f"UA-{number}",
        "carrier": "UA",
        "origin": "EWR",
        "dest": "ORD",
        "tail": f"N{number}UA",
        "departed_at": (START + timedelta(minutes=number)).isoformat(),
        "distance": 700 + number % 1000,
        "scheduled": number % 2400,
        "delay": number * 0.1,
        "temperature": number / 7,
        **added,
    }


def records(rows: int, make: Callable[[int], dict[str, Any]]) -> Array:
    """Encoded events."""
    return object_array((json.dumps(make(number)).encode() for number in range(rows)), rows)


def decode_cases(rows: int) -> dict[str, Callable[[], object]]:
    """Decoders over batches that take the quick and the slow paths."""
    plain = records(rows, event)
    sparse = records(rows, lambda n: event(n, **({"gate": None if n % 3 else "B4"} if n % 2 else {}), wind=n * 0.5))
    unknown = records(rows, lambda n: event(n, region="north", source="acars", revision=3))
    escaped = records(rows, lambda n: event(n, region='the "north"', source="a\\b"))
    nested = records(rows, lambda n: event(n, crew={"captain": "x", "seats": [1, 2]}))
    poisoned = plain.copy()
    poisoned[::50] = b'{"flight_id": 1}'
    contract, optional = Contract.of(Departure), Contract.of(Sparse)
    everything, numbers = frozenset(contract.columns), frozenset(("distance", "scheduled", "delay", "temperature"))
    strict = json_decoder(contract, columns=everything)
    few = json_decoder(contract, columns=numbers)
    checked = json_decoder(contract, columns=frozenset())
    last = json_decoder(contract, columns=frozenset(), duplicate_keys="last")
    all_but_optional = json_decoder(optional, columns=everything)
    with_optional = json_decoder(optional, columns=frozenset(optional.columns))
    lenient = json_decoder(contract, columns=everything, parsing="pydantic")
    return {
        "decode, 10 columns": partial(strict.decode, plain),
        "decode, 4 number columns": partial(few.decode, plain),
        "decode, no column": partial(checked.decode, plain),
        "decode, no column, last duplicate counts": partial(last.decode, plain),
        "decode, 10 columns, 2 optional fields beside them": partial(all_but_optional.decode, sparse),
        "decode, 12 columns, 2 of them optional": partial(with_optional.decode, sparse),
        "decode, 10 columns, 3 unknown fields (exact check)": partial(strict.decode, unknown),
        "decode, 10 columns, unknown with escapes (exact check)": partial(strict.decode, escaped),
        "decode, 10 columns, unknown nested (exact check)": partial(strict.decode, nested),
        "decode, 10 columns, every 50th refused": partial(strict.decode, poisoned),
        "decode, 10 columns, pydantic": partial(lenient.decode, plain),
    }


def encode_cases(rows: int) -> dict[str, Callable[[], object]]:
    """Encoders over five columns."""
    random = np.random.default_rng(0)
    columns: dict[str, Array] = {
        "flight_id": object_array((f"UA-{number}" for number in range(rows)), rows),
        "carrier": object_array(("UA" for _ in range(rows)), rows),
        "predicted_at": np.datetime64("2013-01-01", "us") + np.arange(rows).astype("m8[m]"),
        "late": random.random(rows),
        "delay": random.normal(0, 30, rows),
    }
    single = {**columns, "late": columns["late"].astype("f4"), "delay": columns["delay"].astype("f4")}
    plain, coded = json_encoder(Contract.of(Prediction)), json_encoder(Contract.of(Coded))
    return {
        "encode, 5 columns, float64": partial(plain.encode, columns, rows),
        "encode, 5 columns, float32 written short": partial(plain.encode, single, rows),
        "encode, 5 columns, with a pattern (read back)": partial(coded.encode, columns, rows),
    }


if __name__ == "__main__":
    main()
