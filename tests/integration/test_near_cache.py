"""A near cache on real Redis: what changes there, by whatever way, and what the connection suffers."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis as client

import streamml as sm
from streamml.adapters.prometheus.exporter import WorkerCollector
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.keys import entity_keys, entity_prefix
from streamml.adapters.redis.layout import Layout
from streamml.adapters.redis.loader import LoadPlan, load
from streamml.adapters.redis.near_store import NearFeatureStore
from streamml.adapters.redis.rights import READING, WATCHING, least_rule
from streamml.adapters.redis.tracking import Tracking, TrackingServer
from streamml.adapters.redis.versions import rollback
from streamml.batch.column import object_array
from streamml.clock import SystemClock
from streamml.errors import FeatureStoreDown, FeaturesUnavailable
from streamml.features import FeatureWriter
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.run import RunOptions, StopSignal, run
from streamml.ports.feature_store import FeatureReply, FeatureRequest
from streamml.telemetry.catalogue import NEAR_BYTES, NEAR_CHANGES, NEAR_ENTITIES, NEAR_LOSSES, NEAR_STALENESS
from tests.integration.scoring import Job, payment
from tests.relay import relay

pytestmark = pytest.mark.integration
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
# Only what Redis tells can show a change before the test is over.
NEVER = sm.NearCache(max_mb=4, max_staleness="1h")


def prices(near: sm.NearCache | None = NEVER, kind: Any = "streaming") -> sm.FeatureSet:
    name = f"prices-{uuid.uuid4().hex[:8]}"
    return sm.FeatureSet(name, key="item", columns={"x": sm.f8(default=0.0)}, kind=kind, ttl="3h", near_cache=near)


@pytest.fixture
def url(redis_server: EmbeddedRedis) -> str:
    return redis_server.url


@pytest.fixture
def raw(redis_server: EmbeddedRedis) -> Iterator[Any]:
    with client.Redis(port=redis_server.port) as made:
        yield made


@pytest.fixture
def opened() -> Iterator[Callable[..., NearFeatureStore]]:
    stores: list[NearFeatureStore] = []

    def open_store(url: str, *sets: sm.FeatureSet, **options: Any) -> NearFeatureStore:
        stores.append(NearFeatureStore(url, sets, **options))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


Opened = Callable[..., NearFeatureStore]


def write(url: str, declared: sm.FeatureSet, x: float, *items: str) -> None:
    with FeatureWriter(declared, url=url) as writer:
        at = NOW + timedelta(seconds=x)
        writer.write_rows([{"item": item, "x": x} for item in items], event_time=at)


def ask(store: NearFeatureStore, declared: sm.FeatureSet, *items: str) -> FeatureReply:
    return store.lookup([FeatureRequest(declared.schema, [(item.encode(),) for item in items])])[0]


def values(reply: FeatureReply) -> list[float | None]:
    found = zip(reply.present.tolist(), reply.columns["x"].tolist(), strict=True)
    return [x if there else None for there, x in found]


def until(holds: Callable[[], bool]) -> None:
    """News are under way for as long as the machine takes."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_f7_what_is_near_costs_no_command_and_a_written_value_shows(url: str, raw: Any, opened: Opened) -> None:
    """F7.2, F7.3: also where there was none before."""
    declared = prices()
    write(url, declared, 1.0, "a", "b")
    store = opened(url, declared)
    assert values(ask(store, declared, "a", "b", "c")) == [1.0, 1.0, None]
    before = raw.info("stats")["total_commands_processed"]
    for _ in range(10):
        assert values(ask(store, declared, "c", "b", "a")) == [None, 1.0, 1.0]
    assert raw.info("stats")["total_commands_processed"] == before + 1
    write(url, declared, 2.0, "b", "c")
    until(lambda: values(ask(store, declared, "a", "b", "c")) == [1.0, 2.0, 2.0])
    (use,) = store.near_caches()
    assert (use.set, use.changes, use.losses) == (declared.name, 2, 0)
    assert use.hits >= 30
    assert 0 < use.size_bytes < 4_000_000
    assert 0 <= use.staleness_s < 20


def test_f7_a_loaded_version_shows_and_so_does_going_back(url: str, opened: Opened) -> None:
    """F7.2, F4.1."""
    declared, server = prices(kind="loaded"), Server(url)

    def rows(x: float) -> dict[str, Any]:
        items = object_array(["a", "b"], 2)
        return {"item": items, "x": np.full(2, x), "event_time": np.full(2, "2026-01-31", "M8[us]")}

    first = load(server, LoadPlan(declared.schema, ("item",)), [rows(1.0)]).version
    store = opened(url, declared)
    assert (ask(store, declared, "a").version, values(ask(store, declared, "a", "b"))) == (first, [1.0, 1.0])
    second = load(server, LoadPlan(declared.schema, ("item",)), [rows(2.0)]).version
    until(lambda: ask(store, declared, "a").version == second)
    assert values(ask(store, declared, "a", "b")) == [2.0, 2.0]
    rollback(server, declared.name)
    until(lambda: ask(store, declared, "a").version == first)
    assert values(ask(store, declared, "a", "b")) == [1.0, 1.0]


def test_f7_any_number_of_changes_may_be_told_before_an_answer(url: str, raw: Any) -> None:
    """F7.2."""
    name = uuid.uuid4().hex
    keys = [f"{name}:{number}".encode() for number in range(3000)]
    tracking = Tracking(TrackingServer(url, 5.0), SystemClock())
    try:
        tracking.connect()
        assert tracking.ask([], keys) == ([], [None] * 3000)
        raw.mset(dict.fromkeys(keys, b"changed"))
        tracking.confirm()
        assert sorted(filter(None, tracking.told())) == sorted(keys)
        assert tracking.ask([], keys[:2]) == ([], [b"changed"] * 2)
    finally:
        tracking.close()
        raw.unlink(*keys)


def test_f7_with_the_tracking_connection_all_that_it_watched_goes(url: str, raw: Any, opened: Opened) -> None:
    """F7.2: the next lookup goes on with another connection."""
    declared = prices()
    write(url, declared, 1.0, "a")
    store = opened(url, declared)
    assert values(ask(store, declared, "a")) == [1.0]
    raw.client_kill_filter(_id=max(int(one["id"]) for one in raw.client_list() if "t" in one["flags"]))
    write(url, declared, 2.0, "a")
    until(lambda: values(ask(store, declared, "a")) == [2.0])
    assert store.near_caches()[0].losses == 1


def test_f7_behind_a_silent_network_nothing_is_used_for_longer_than_declared(
    redis_server: EmbeddedRedis, opened: Opened
) -> None:
    """F7.1."""
    bound_s = 0.3
    declared = prices(sm.NearCache(4, f"{bound_s:g}s"))
    write(redis_server.url, declared, 1.0, "a")
    with relay(redis_server.port) as between:
        store = opened(f"redis://127.0.0.1:{between.port}", declared, timeout_s=0.5)
        assert values(ask(store, declared, "a")) == [1.0]
        between.hold()
        write(redis_server.url, declared, 2.0, "a")
        written = time.monotonic()
        assert _last_use(store, declared) < written + bound_s
        between.release()
        until(lambda: _answers(store, declared))
        assert values(ask(store, declared, "a")) == [2.0]
        assert store.near_caches()[0].losses == 1


def _last_use(store: NearFeatureStore, declared: sm.FeatureSet) -> float:
    """When the last lookup began that was not refused."""
    last = float("-inf")
    while True:
        began = time.monotonic()
        try:
            assert values(ask(store, declared, "a")) == [1.0]
        except FeatureStoreDown:
            return last
        last = began


def _answers(store: NearFeatureStore, declared: sm.FeatureSet) -> bool:
    try:
        return len(ask(store, declared, "a").present) == 1
    except FeatureStoreDown:
        return False


def test_f7_while_values_are_written_none_is_used_that_was_replaced_longer_ago(url: str, opened: Opened) -> None:
    """F7.1: each entity's value is the number of its write; `written` has the latest that was acknowledged, and when."""
    bound_s, items = 0.05, [f"i{number}" for number in range(20)]
    declared = prices(sm.NearCache(4, f"{bound_s:g}s"))
    write(url, declared, 0.0, *items)
    store, written, done = opened(url, declared), [(0.0, 0.0)], threading.Event()

    def writing() -> None:
        with FeatureWriter(declared, url=url) as writer:
            for number in range(1, 100):
                at = NOW + timedelta(seconds=number)
                writer.write_rows([{"item": item, "x": float(number)} for item in items], event_time=at)
                written.append((time.monotonic(), float(number)))
        done.set()

    threading.Thread(target=writing, daemon=True).start()
    while not done.is_set():
        began = time.monotonic()
        oldest = max(number for at, number in written if at <= began - bound_s)
        assert min(ask(store, declared, *items).columns["x"].tolist()) >= oldest
    until(lambda: values(ask(store, declared, *items)) == [99.0] * len(items))
    assert store.near_caches()[0].hits > 0


def test_f7_a_flushed_database_is_empty_near_too(redis_server: EmbeddedRedis, opened: Opened) -> None:
    """F7.2."""
    url, declared = f"redis://127.0.0.1:{redis_server.port}/9", prices()
    write(url, declared, 1.0, "a")
    store = opened(url, declared)
    assert values(ask(store, declared, "a")) == [1.0]
    with client.Redis(port=redis_server.port, db=9) as raw:
        raw.flushdb()
    until(lambda: _never_written(store, declared))


def _never_written(store: NearFeatureStore, declared: sm.FeatureSet) -> bool:
    try:
        return values(ask(store, declared, "a")) == []
    except FeaturesUnavailable as error:
        return "never written" in str(error)


def test_f7_a_value_that_expires_is_forgotten_when_redis_deletes_it(url: str, raw: Any, opened: Opened) -> None:
    declared = prices()
    write(url, declared, 1.0, "a")
    prefix = entity_prefix(declared.name, Layout.of(declared.schema).live_version)
    raw.pexpire(entity_keys(prefix, [(b"a",)])[0], 50)
    store = opened(url, declared)
    until(lambda: values(ask(store, declared, "a")) == [None])


def test_f7_other_sets_come_in_the_same_round_trip_and_are_not_watched(url: str, raw: Any, opened: Opened) -> None:
    """F7.4."""
    near, other = prices(), prices(None)
    for declared in (near, other):
        write(url, declared, 1.0, "a", "b")
    store, keys = opened(url, near), [(b"a",), (b"b",)]
    both = [FeatureRequest(other.schema, keys), FeatureRequest(near.schema, keys)]
    watched = raw.info("stats")["tracking_total_keys"]
    for _ in range(3):
        assert [values(reply) for reply in store.lookup(both)] == [[1.0, 1.0]] * 2
    assert raw.info("stats")["tracking_total_keys"] == watched + 3
    write(url, other, 2.0, "a")
    assert [values(reply) for reply in store.lookup(both)] == [[2.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize("lacking", [None, *WATCHING])
def test_the_documented_rights_suffice_and_each_is_needed(
    redis_server: EmbeddedRedis, raw: Any, opened: Opened, lacking: str | None
) -> None:
    declared, user = prices(), f"u{uuid.uuid4().hex[:8]}"
    write(redis_server.url, declared, 1.0, "a")
    rule = least_rule(user, [declared.name], [one for one in (*READING, *WATCHING) if one != lacking])
    raw.execute_command(*rule.split())
    store = opened(f"redis://{user}:PASSWORD@127.0.0.1:{redis_server.port}/0", declared)
    if lacking is None:
        store.ping()
        assert values(ask(store, declared, "a")) == [1.0]
    else:
        with pytest.raises(FeaturesUnavailable, match=r"does not permit this|refused the login"):
            ask(store, declared, "a")
    raw.acl_deluser(user)


def test_f7_a_worker_keeps_values_near_and_says_so(kafka: EmbeddedKafka, url: str, tmp_path: Path) -> None:
    """F7.5: 200 payments of two accounts, in as many batches as they come."""
    job = Job(kafka.bootstrap_servers, url, tmp_path, {"near_cache": sm.NearCache(max_mb=1)})
    job.create()
    job.features({"a1": 10.0, "a2": 20.0})
    job.produce([payment(number, f"a{number % 2 + 1}") for number in range(200)])
    parts: list[Any] = []
    options = RunOptions(until_caught_up=True, patience_s=20)
    run(job.located, job.settings, options, StopSignal(), started=lambda *found: parts.extend(found))
    assert len(job.predictions()) == 200
    composed, observer = parts
    told = {
        (family.name, *one.labels.values()): one.value
        for family in WorkerCollector(composed.engine, observer).collect()
        for one in family.samples
        if family.name.startswith("streamml_near_cache")
    }
    (use,) = observer.near_caches()
    assert told == {
        (NEAR_ENTITIES.name, job.name, "hit"): use.hits,
        (NEAR_ENTITIES.name, job.name, "miss"): 2,
        (NEAR_CHANGES.name, job.name): 0,
        (NEAR_LOSSES.name, job.name): 0,
        (NEAR_BYTES.name, job.name): use.size_bytes,
        (NEAR_STALENESS.name, job.name): use.staleness_s,
    }
    assert use.size_bytes > 0
