"""What the writer of streaming features does: ``python -m loadtests.micro.bench_feature_writer [--json FILE]``.

One process writes entities of 16 float32 into a redis-server of its own on loopback, first into nothing ("new"), then
over what is there, each time with a later event time ("again"). Beside it the same keys and values by SET with an expiry, which
compares nothing: packed and pipelined, as many at a time. The best of the rounds stands for each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import streamml as sm
from loadtests.micro.bench_redis import redis_server
from streamml.adapters.redis.connection import Server, pack
from streamml.adapters.redis.keys import entity_prefix, keys_of_parts
from streamml.adapters.redis.layout import Layout
from streamml.batch.column import object_array
from streamml.features import FeatureWriter
from streamml.ops.cores import cores

AIRPORTS = sm.FeatureSet(
    "bench",
    key="entity",
    columns={f"c{number}": sm.f4(default=0.0) for number in range(16)},
    kind="streaming",
    ttl="1h",
)
_PIPELINE = 200
_EPOCH = np.datetime64("2026-01-01T00:00:00", "us")
Batch = dict[str, Any]


def batches(entities: int, per_call: int) -> list[Batch]:
    keys = [f"{number:08d}" for number in range(entities)]
    values = np.random.default_rng(1).random((16, per_call), np.float32)
    return [
        {
            "entity": object_array(keys[start : start + per_call], len(keys[start : start + per_call])),
            **{f"c{number}": column[: len(keys[start : start + per_call])] for number, column in enumerate(values)},
        }
        for start in range(0, entities, per_call)
    ]


def per_second(entities: int, work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return entities / (time.perf_counter() - begun)


def write_all(writer: FeatureWriter, made: list[Batch], moment: int) -> None:
    for batch in made:
        rows = len(batch["entity"])
        written = writer.write({**batch, "event_time": np.full(rows, _EPOCH + np.timedelta64(moment, "s"))})
        assert written.older == 0


def set_all(port: int, made: list[Batch]) -> None:
    """The same bytes under the same keys, by plain SET."""
    layout = Layout.of(AIRPORTS.schema)
    prefix = entity_prefix("plain", layout.live_version)
    session = Server(f"redis://127.0.0.1:{port}", 5.0).connect()
    for batch in made:
        rows = len(batch["entity"])
        keys = keys_of_parts(prefix, [[key.encode() for key in batch["entity"].tolist()]], rows)
        values = layout.encode(batch, np.zeros(rows, np.int64), 0)
        pending = 0
        for start in range(0, rows, _PIPELINE):
            pairs = zip(keys[start : start + _PIPELINE], values[start : start + _PIPELINE], strict=True)
            packed = [pack("SET", key, value, "PX", 7_200_000) for key, value in pairs]
            session.send(b"".join(packed))
            pending += len(packed)
            while pending > 8 * _PIPELINE:
                session.read()
                pending -= 1
        for _ in range(pending):
            session.read()
    session.close()


def measure(entities: int, per_call: int, rounds: int) -> dict[str, float]:
    """Entities per second."""
    made = batches(entities, per_call)
    figures: dict[str, list[float]] = {"writer_new": [], "writer_again": [], "plain_set_new": [], "plain_set_again": []}
    for _ in range(rounds):
        with redis_server() as port:
            with FeatureWriter(AIRPORTS, url=f"redis://127.0.0.1:{port}") as writer:
                figures["writer_new"].append(per_second(entities, lambda: write_all(writer, made, 0)))
                figures["writer_again"].append(per_second(entities, lambda: write_all(writer, made, 1)))
            figures["plain_set_new"].append(per_second(entities, lambda: set_all(port, made)))
            figures["plain_set_again"].append(per_second(entities, lambda: set_all(port, made)))
    return {name: round(max(found)) for name, found in figures.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entities", type=int, default=200_000)
    parser.add_argument("--per-call", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="a file for the result and its conditions")
    asked = parser.parse_args()
    figures = measure(asked.entities, asked.per_call, asked.rounds)
    for name, figure in figures.items():
        print(f"{name:16s} {figure:12,.0f} entities/s")
    if asked.json:
        conditions = {
            # Of two cores: far above 2, other work had most of them, and only the ratio to plain SET says something.
            "load_average_at_end": round(os.getloadavg()[0], 1),
            "date": datetime.now(UTC).date().isoformat(),
            "cores": cores(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "entities": asked.entities,
            "per_call": asked.per_call,
            "rounds": asked.rounds,
            "columns": 16,
            "redis": "6.2 on the same machine, nothing persisted; one process writes",
        }
        asked.json.write_text(json.dumps({"conditions": conditions, "entities_per_s": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
