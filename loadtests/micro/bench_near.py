"""What a near cache saves: ``python -m loadtests.micro.bench_near [--entities N] [--lookups N] [--json]``.

A redis-server of its own on loopback holds N entities of 16 float32. The same lookups go to a store without and to one with a near
cache, in turn. "All near" has room for every entity and has seen them; "zipf" asks for entities as Zipf's law has them and has room for
a tenth; "nothing repeats" asks for entities that were never seen, which is the worst. Times are medians, per entity asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from loadtests.micro.bench_redis import SCHEMA, entities_of, load_all, redis_server
from streamml.adapters.redis.near_store import NearFeatureStore
from streamml.adapters.redis.store import RedisFeatureStore
from streamml.ops.cores import cores
from streamml.ports.feature_store import FeatureRequest
from streamml.topology.features import FeatureSet, NearCache

_BATCHES = (1, 16, 256, 2048)
_ENTRY_BYTES = 450
_MEGABYTE = 1_000_000
Entities = Sequence[tuple[bytes, ...]]


def near_store(url: str, entities: int) -> NearFeatureStore:
    """With room for so many entities."""
    room = NearCache(max_mb=max(1, entities * _ENTRY_BYTES // _MEGABYTE), max_staleness="1s")
    return NearFeatureStore(
        url, [FeatureSet(SCHEMA.name, key=("a", "b"), columns=dict(SCHEMA.columns), near_cache=room)]
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians in microseconds per entity, and the share of hits meanwhile."""

    without_us: float
    near_us: float
    hit_share: float


def in_turn(plain: RedisFeatureStore, near: NearFeatureStore, asked: Iterator[Entities]) -> Measured:
    """The same lookups to both."""
    near.lookup([FeatureRequest(SCHEMA, [])])
    (before,) = near.near_caches()
    taken: tuple[list[float], list[float]] = ([], [])
    for entities in asked:
        for store, times in zip((plain, near), taken, strict=True):
            # Objects of its own for each: a key that was hashed before is found faster.
            request = [FeatureRequest(SCHEMA, [(bytes(bytearray(a)), bytes(bytearray(b))) for a, b in entities])]
            started = time.perf_counter()
            store.lookup(request)
            times.append((time.perf_counter() - started) * 1e6 / len(entities))
    (after,) = near.near_caches()
    hits, misses = after.hits - before.hits, after.misses - before.misses
    return Measured(median(taken[0]), median(taken[1]), hits / (hits + misses))


def fill(store: NearFeatureStore, numbers: np.ndarray) -> None:
    """Have it see these entities, in this order."""
    for start in range(0, len(numbers), 2048):
        store.lookup([FeatureRequest(SCHEMA, entities_of(np.unique(numbers[start : start + 2048])))])


def measure(entities: int, lookups: int) -> list[dict[str, object]]:
    """A row per stream and batch size."""
    random, rows = np.random.default_rng(0), []
    weight = 1.0 / np.arange(1, entities + 1)
    weight /= weight.sum()
    places = random.permutation(entities)

    def zipf(batch: int) -> Entities:
        return entities_of(places[np.unique(random.choice(entities, batch, p=weight))])

    with redis_server() as port:
        url = f"redis://127.0.0.1:{port}"
        load_all(port, entities)
        plain = RedisFeatureStore(url)
        for batch in _BATCHES:
            near = near_store(url, entities)
            fill(near, np.arange(entities))
            chosen = (entities_of(random.choice(entities, batch, replace=False)) for _ in range(lookups))
            rows.append(row("all near", batch, in_turn(plain, near, chosen)))
            near.close()

            near = near_store(url, entities // 10)
            fill(near, places[random.choice(entities, 2 * entities, p=weight)])
            rows.append(row("zipf", batch, in_turn(plain, near, (zipf(batch) for _ in range(lookups)))))
            near.close()

            near = near_store(url, entities)
            count = min(lookups, entities // batch)
            new = np.array_split(random.permutation(entities)[: count * batch], count)
            rows.append(row("nothing repeats", batch, in_turn(plain, near, map(entities_of, new))))
            near.close()
        plain.close()
    return rows


def row(stream: str, batch: int, measured: Measured) -> dict[str, object]:
    return {
        "stream": stream,
        "batch": batch,
        "hit_share": round(measured.hit_share, 3),
        "without_us": round(measured.without_us, 3),
        "near_us": round(measured.near_us, 3),
        "ratio": round(measured.without_us / measured.near_us, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--lookups", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    asked = parser.parse_args()
    rows = measure(asked.entities, asked.lookups)
    if asked.json:
        print(
            json.dumps(
                {"cores": cores(), "load": os.getloadavg()[0], "entities": asked.entities, "rows": rows},
                indent=1,
            )
        )
        return
    for one in rows:
        print("  ".join(f"{name} {value}" for name, value in one.items()))


if __name__ == "__main__":
    main()
