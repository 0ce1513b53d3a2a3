"""What every feature store must do, on the one in memory, on real Redis and on a cluster of it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from streamml.adapters.memory.feature_store import MemoryFeatureStore
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.loader import LoadPlan, load
from streamml.adapters.redis.store import RedisFeatureStore
from streamml.adapters.redis.versions import rollback
from streamml.batch.column import f4, i8, object_array
from streamml.errors import ConfigError, FeaturesUnavailable
from streamml.features import FeatureWriter
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ports.feature_store import FeatureReply, FeatureRequest, FeatureSchema, FeatureStore
from streamml.topology.features import FeatureSet

Values = Mapping[tuple[str, ...], Mapping[str, Any]]


@dataclass
class Subject:
    """A store, and how to load into it."""

    store: FeatureStore
    load: Callable[[FeatureSchema, Values, int], str]
    rollback: Callable[[str], str]
    write: Callable[[FeatureSchema, Values, int], object]
    name: str

    def streaming(self, *columns: tuple[str, Any]) -> FeatureSchema:
        return replace(self.schema(*columns), kind="streaming")

    def schema(self, *columns: tuple[str, Any]) -> FeatureSchema:
        return FeatureSchema(self.name, columns or (("mean", f4), ("last", i8), ("vector", f4[3])))

    def ask(self, *entities: tuple[str, ...], schema: FeatureSchema | None = None) -> FeatureReply:
        keys = [tuple(part.encode() for part in entity) for entity in entities]
        reply = self.store.lookup([FeatureRequest(schema or self.schema(), keys)])[0]
        # Steps that a user wrote get these columns as they are.
        assert not any(column.flags.writeable for column in reply.columns.values())
        return reply


def memory(name: str) -> Subject:
    store = MemoryFeatureStore()
    return Subject(
        store,
        lambda schema, rows, at: store.load(schema, dict[Any, Any](rows), at),
        store.rollback,
        lambda schema, rows, at: store.write(schema, dict[Any, Any](rows), at),
        name,
    )


def real(name: str, url: str) -> Subject:
    server = Server(url)

    def load_rows(schema: FeatureSchema, rows: Values, at: int) -> str:
        return load(server, LoadPlan(schema, ("a", "b")), [batch(schema, rows, at)]).version

    def write_rows(schema: FeatureSchema, rows: Values, at: int) -> None:
        declared = FeatureSet(schema.name, key=("a", "b"), columns=dict(schema.columns), kind="streaming", ttl="1h")
        with FeatureWriter(declared, url=url) as writer:
            writer.write(batch(schema, rows, at))

    return Subject(RedisFeatureStore(url), load_rows, lambda one: rollback(server, one).version, write_rows, name)


def batch(schema: FeatureSchema, rows: Values, at: int) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "a": object_array([entity[0] for entity in rows], len(rows)),
        "b": object_array([entity[1] for entity in rows], len(rows)),
        "event_time": np.full(len(rows), at).astype("M8[us]"),
    }
    for name, declared in schema.columns:
        columns[name] = np.array([values[name] for values in rows.values()], declared.dtype)
    return columns


REAL = [pytest.param(name, marks=pytest.mark.integration) for name in ("redis_server", "redis_cluster")]


@pytest.fixture(params=["memory", *REAL])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    name = "s" + request.node.name.encode().hex()[-40:]
    real_url = None if request.param == "memory" else request.getfixturevalue(request.param).url
    made = memory(name) if real_url is None else real(name, real_url)
    yield made
    made.store.close()


ROW = {"mean": 1.5, "last": -7, "vector": [1.0, 2.0, 3.0]}


def test_values_come_back_as_they_were_loaded_in_the_order_asked(subject: Subject) -> None:
    version = subject.load(subject.schema(), {("JFK", "LAX"): ROW, ("EWR", "ü"): {**ROW, "mean": 2.5}}, 1_000)
    reply = subject.ask(("EWR", "ü"), ("no", "where"), ("JFK", "LAX"))
    assert reply.version == version
    assert reply.present.tolist() == [True, False, True]
    assert reply.event_time.tolist() == [1_000, 0, 1_000]
    assert reply.columns["mean"].tolist() == [2.5, 0.0, 1.5]
    assert reply.columns["last"].tolist() == [-7, 0, -7]
    assert reply.columns["vector"].tolist() == [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]


def test_key_parts_are_not_run_together(subject: Subject) -> None:
    """F1.4."""
    subject.load(subject.schema(), {("1", "12"): ROW}, 0)
    assert subject.ask(("11", "2"), ("1", "12")).present.tolist() == [False, True]


def test_f4_a_load_replaces_the_version_and_a_rollback_brings_it_back(subject: Subject) -> None:
    """F4.1."""
    first = subject.load(subject.schema(), {("a", "b"): ROW}, 0)
    second = subject.load(subject.schema(), {("c", "d"): ROW}, 0)
    assert first != second
    assert subject.ask(("a", "b"), ("c", "d")).present.tolist() == [False, True]
    assert subject.rollback(subject.name) == first
    reply = subject.ask(("a", "b"), ("c", "d"))
    assert (reply.version, reply.present.tolist()) == (first, [True, False])


def test_f4_a_set_that_was_never_loaded_and_another_schema_are_unavailable(subject: Subject) -> None:
    """F4.3."""
    with pytest.raises(FeaturesUnavailable, match="never loaded"):
        subject.ask(("a", "b"))
    subject.load(subject.schema(), {("a", "b"): ROW}, 0)
    with pytest.raises(FeaturesUnavailable, match="schema"):
        subject.ask(("a", "b"), schema=subject.schema(("mean", f4)))


def test_an_empty_request_checks_the_set_all_the_same(subject: Subject) -> None:
    with pytest.raises(FeaturesUnavailable):
        subject.ask()
    subject.load(subject.schema(), {("a", "b"): ROW}, 0)
    assert len(subject.ask().present) == 0


def test_several_sets_in_one_lookup(subject: Subject) -> None:
    other = FeatureSchema(subject.name + "x", (("mean", f4),))
    subject.load(subject.schema(), {("a", "b"): ROW}, 0)
    subject.load(other, {("a", "b"): {"mean": 9.0}}, 5)
    keys = [(b"a", b"b")]
    replies = subject.store.lookup([FeatureRequest(subject.schema(), keys), FeatureRequest(other, keys)])
    assert [reply.columns["mean"].tolist() for reply in replies] == [[1.5], [9.0]]
    assert replies[1].event_time.tolist() == [5]


def test_f6_a_streaming_value_is_replaced_in_place_and_never_by_an_older_one(subject: Subject) -> None:
    """F6.1, F6.2."""
    schema = subject.streaming()
    subject.write(schema, {("a", "b"): ROW, ("c", "d"): ROW}, 1_000)
    subject.write(schema, {("a", "b"): {**ROW, "mean": 2.5}}, 2_000)
    subject.write(schema, {("a", "b"): {**ROW, "mean": 9.0}}, 1_999)
    subject.write(schema, {("c", "d"): {**ROW, "mean": 3.5}}, 1_000)
    reply = subject.ask(("a", "b"), ("c", "d"), ("e", "f"), schema=schema)
    assert reply.version.startswith("live")
    assert reply.present.tolist() == [True, True, False]
    assert reply.columns["mean"].tolist() == [2.5, 3.5, 0.0]
    assert reply.columns["vector"].tolist() == [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]
    assert reply.event_time.tolist() == [2_000, 1_000, 0]


@pytest.mark.parametrize("times", [(-5, -4), (-(2**55), -1), (-1, 0), (2**32 - 1, 2**32), (2**53, 2**53 + 1)])
def test_f6_every_two_event_times_are_told_apart(subject: Subject, times: tuple[int, int]) -> None:
    """F6.2."""
    schema = subject.streaming()
    for at, mean in ((times[1], 2.0), (times[0], 1.0)):
        subject.write(schema, {("a", "b"): {**ROW, "mean": mean}}, at)
    assert subject.ask(("a", "b"), schema=schema).event_time.tolist() == [times[1]]


def test_f6_each_schema_of_a_streaming_set_has_values_of_its_own(subject: Subject) -> None:
    """F6.3."""
    before, after = subject.streaming(), subject.streaming(("mean", f4))
    with pytest.raises(FeaturesUnavailable, match="never written"):
        subject.ask(schema=before)
    subject.write(before, {("a", "b"): ROW}, 5)
    with pytest.raises(FeaturesUnavailable, match="never written"):
        subject.ask(("a", "b"), schema=after)
    subject.write(after, {("a", "b"): {"mean": 7.0}}, 1)
    assert subject.ask(("a", "b"), schema=before).columns["mean"].tolist() == [1.5]
    assert subject.ask(("a", "b"), schema=after).columns["mean"].tolist() == [7.0]


def test_f6_a_loaded_and_a_streaming_set_are_read_together_also_of_one_name(subject: Subject) -> None:
    """F6.4."""
    subject.load(subject.schema(), {("a", "b"): ROW}, 0)
    subject.write(subject.streaming(), {("a", "b"): {**ROW, "mean": 4.0}}, 0)
    keys = [(b"a", b"b")]
    both = [FeatureRequest(subject.schema(), keys), FeatureRequest(subject.streaming(), keys)]
    assert [reply.columns["mean"].tolist() for reply in subject.store.lookup(both)] == [[1.5], [4.0]]


def test_memory_can_be_unavailable_on_purpose() -> None:
    subject = memory("x")
    subject.load(subject.schema(), {("a", "b"): ROW}, 0)
    assert isinstance(subject.store, MemoryFeatureStore)
    subject.store.fail("Redis is away.")
    with pytest.raises(FeaturesUnavailable, match="away"):
        subject.ask(("a", "b"))
    subject.store.recover()
    assert subject.ask(("a", "b")).present.all()


@pytest.mark.parametrize("where", REAL)
def test_f4_during_loads_a_lookup_sees_one_whole_version(where: str, request: pytest.FixtureRequest) -> None:
    """F1.2, F4.1."""
    subject = real("cutover", request.getfixturevalue(where).url)
    entities = [(str(number), "x") for number in range(300)]

    def rows(value: float) -> Values:
        return {entity: {"mean": value, "last": int(value), "vector": [value] * 3} for entity in entities}

    subject.load(subject.schema(), rows(0.0), 0)
    loader = threading.Thread(target=lambda: [subject.load(subject.schema(), rows(float(n)), n) for n in range(1, 15)])
    loader.start()
    seen = set()
    while loader.is_alive():
        reply = subject.ask(*entities)
        assert reply.present.all()
        assert len(set(reply.columns["mean"].tolist())) == 1
        assert reply.columns["mean"].tolist() == reply.columns["last"].tolist()
        seen.add(reply.version)
    loader.join()
    assert len(seen) > 1
    subject.store.close()


@pytest.mark.integration
def test_truncated_and_foreign_values_are_missing_and_counted(redis_server: EmbeddedRedis) -> None:
    """F1.3."""
    import redis as client

    subject = real("broken", redis_server.url)
    version = subject.load(subject.schema(), {("a", "b"): ROW, ("c", "d"): ROW, ("e", "f"): ROW}, 0)
    with client.Redis(port=redis_server.port) as raw:
        key = f"streamml:broken:{version}:1:a1:b"
        whole = raw.get(key)
        raw.set(key, whole[:-1])
        raw.set(f"streamml:broken:{version}:1:c1:d", b"\0" * len(whole))
    assert subject.ask(("a", "b"), ("c", "d"), ("e", "f")).present.tolist() == [False, False, True]
    assert isinstance(subject.store, RedisFeatureStore)
    assert subject.store.corrupt_values == 2
    subject.store.close()


@pytest.mark.integration
def test_a_redis_that_dies_is_unavailable_and_recovers_by_itself(own_redis: EmbeddedRedis) -> None:
    subject = real("dies", own_redis.url)
    subject.load(subject.schema(), {("a", "b"): ROW}, 0)
    assert subject.ask(("a", "b")).present.all()
    own_redis.stop()
    with pytest.raises(FeaturesUnavailable, match="cannot be reached"):
        subject.ask(("a", "b"))
    own_redis.start()
    assert subject.ask(("a", "b")).present.all()
    subject.store.close()


@pytest.mark.integration
def test_a_slow_redis_is_unavailable_after_the_timeout(redis_server: EmbeddedRedis) -> None:
    import redis as client

    subject = real("slow", redis_server.url)
    subject.load(subject.schema(), {("a", "b"): ROW}, 0)
    quick = RedisFeatureStore(redis_server.url, timeout_s=0.1)
    keys = [(b"a", b"b")]
    assert quick.lookup([FeatureRequest(subject.schema(), keys)])[0].present.all()
    with client.Redis(port=redis_server.port) as raw:
        raw.execute_command("CLIENT", "PAUSE", 400)
        with pytest.raises(FeaturesUnavailable, match="did not answer within"):
            quick.lookup([FeatureRequest(subject.schema(), keys)])
        raw.execute_command("CLIENT", "UNPAUSE")
    assert quick.lookup([FeatureRequest(subject.schema(), keys)])[0].present.all()
    quick.close()
    subject.store.close()


@pytest.mark.integration
def test_rows_that_cannot_be_stored_are_all_named_and_nothing_changes(redis_server: EmbeddedRedis) -> None:
    subject = real("badrows", redis_server.url)
    good = subject.load(subject.schema(), {("a", "b"): ROW}, 0)
    broken = batch(subject.schema(), {("a", str(n)): ROW for n in range(5)}, 0)
    broken["mean"] = np.ma.MaskedArray(broken["mean"], mask=[False, True, False, True, False])
    with pytest.raises(ConfigError) as caught:
        load(Server(redis_server.url), LoadPlan(subject.schema(), ("a", "b")), [broken])
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["Row 2", "Row 4"]
    assert subject.ask(("a", "b")).version == good
    subject.store.close()


_FORKS = """
import os, sys
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.pool import Pool
pool = Pool(Server(sys.argv[1]))
with pool.session() as parents:
    parents.call("PING")
child = os.fork()
if not child:
    with pool.session() as mine:
        os._exit(mine is parents)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.integration
def test_a_forked_process_takes_a_connection_of_its_own(redis_server: EmbeddedRedis) -> None:
    subprocess.run([sys.executable, "-c", _FORKS, redis_server.url], check=True, timeout=60)
