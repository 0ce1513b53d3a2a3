"""The store with a near cache over a simulated Redis: what is asked, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from streamml.adapters.redis.catalogue import Pointer, pack_pointer
from streamml.adapters.redis.keys import entity_keys, entity_prefix
from streamml.adapters.redis.layout import Layout, schema_lines
from streamml.adapters.redis.near_store import NearFeatureStore
from streamml.adapters.redis.tracking import Tracking
from streamml.batch.column import i8
from streamml.clock import ManualClock
from streamml.errors import ConfigError, FeatureStoreDown, FeaturesUnavailable
from streamml.ports.feature_store import FeatureRequest, NearCaching
from streamml.topology.features import FeatureSet, NearCache
from tests.property.simulated_redis import SimulatedRedis

BOUND_S = 2.0
NEAR = FeatureSet("near", key="k", columns={"x": i8}, near_cache=NearCache(1, "2s"))
PLAIN = FeatureSet("plain", key="k", columns={"x": i8})


@dataclass
class World:
    """A store, and what it asks."""

    clock: ManualClock
    redis: SimulatedRedis
    store: Any

    def put(self, declared: FeatureSet, entity: bytes, x: int | None, version: str = "v1") -> None:
        layout = Layout.of(declared.schema)
        key = entity_keys(entity_prefix(declared.name, version), [(entity,)])[0]
        value = None if x is None else layout.encode({"x": np.array([x])}, np.array([x]), 0)[0]
        self.redis.put(key, value)

    def point(self, declared: FeatureSet, version: str = "v1", schema_hash: int | None = None) -> None:
        layout = Layout.of(declared.schema)
        lines = tuple(schema_lines(declared.schema))
        self.redis.put(layout.pointer, pack_pointer(Pointer(version, schema_hash or layout.schema_hash, lines, 0.0)))

    def ask(self, *entities: bytes, of: tuple[FeatureSet, ...] = (NEAR,)) -> list[list[int | None]]:
        keys = [(entity,) for entity in entities]
        replies = self.store.lookup([FeatureRequest(one.schema, keys) for one in of])
        rows = [zip(reply.present.tolist(), reply.columns["x"].tolist(), strict=True) for reply in replies]
        return [[x if there else None for there, x in row] for row in rows]

    def trips(self, *entities: bytes, of: tuple[FeatureSet, ...] = (NEAR,)) -> int:
        before = self.redis.trips
        self.ask(*entities, of=of)
        return self.redis.trips - before


@pytest.fixture
def world() -> World:
    clock = ManualClock(100.0)
    redis = SimulatedRedis(clock)
    store: Any = NearFeatureStore("redis://simulated", [NEAR], clock=clock)
    store._tracking = Tracking(redis, clock)  # type: ignore[arg-type]
    made = World(clock, redis, store)
    for declared in (NEAR, PLAIN):
        made.point(declared)
        made.put(declared, b"a", 1)
        made.put(declared, b"b", 2)
    made.ask(b"a", of=(NEAR, PLAIN))
    return made


def test_f7_what_the_cache_lacks_and_other_sets_need_is_one_round_trip(world: World) -> None:
    """F7.4, F1.1."""
    assert world.trips(b"a", b"b", b"c", of=(PLAIN, NEAR)) == 1
    assert world.ask(b"c", b"b", b"a", of=(PLAIN, NEAR)) == [[None, 2, 1]] * 2
    assert world.trips(b"a", b"b", b"c") == 0


def test_f7_a_sign_of_life_is_asked_for_once_in_the_bound(world: World) -> None:
    """F7.1: not more often, as it costs a round trip."""
    before = world.redis.trips
    for _ in range(100):
        world.clock.advance(BOUND_S / 10)
        assert world.ask(b"a") == [[1]]
    assert 8 <= world.redis.trips - before <= 10
    assert world.store.near_caches()[0].staleness_s <= BOUND_S


def test_f7_an_answer_says_nothing_of_what_changed_while_it_was_under_way(world: World) -> None:
    """F7.1: the answer to the other set's values comes 0.75 s after the change, and the news of it not at all."""
    world.ask(b"a", b"b")
    world.redis.way_s = 0.75
    world.redis.meanwhile = lambda: world.put(NEAR, b"a", 5)
    assert world.ask(b"a", of=(NEAR, PLAIN)) == [[1], [1]]
    world.clock.advance(1.5)
    assert world.ask(b"a") == [[5]]


def test_f7_a_change_that_was_told_shows_at_the_next_lookup(world: World) -> None:
    """F7.2."""
    world.put(NEAR, b"a", 5)
    assert world.ask(b"a") == [[1]]
    world.redis.links[0].arrive(1)
    assert world.ask(b"a") == [[5]]
    world.put(NEAR, b"a", None)
    world.redis.links[0].arrive(1)
    assert world.ask(b"a") == [[None]]


@pytest.mark.parametrize("told", [True, False])
def test_f7_another_version_shows_when_it_is_told_or_the_bound_is_over(world: World, told: bool) -> None:
    """F7.1, F7.2, F4.1: all that is asked for is near, so that nothing else would ask for the pointer."""
    world.put(NEAR, b"a", 7, "v2")
    world.ask(b"a")
    for version, x in (("v2", 7), ("v1", 1)):
        world.point(NEAR, version)
        if told:
            world.redis.links[0].arrive(1)
        else:
            world.clock.advance(BOUND_S + 0.1)
        assert world.ask(b"a") == [[x]]


def test_a_version_of_another_schema_is_unavailable_until_it_is_mended(world: World) -> None:
    """F4.3."""
    world.point(NEAR, schema_hash=7)
    world.redis.links[0].arrive(1)
    for _ in range(2):
        with pytest.raises(FeaturesUnavailable, match="another schema"):
            world.ask(b"a")
    world.point(NEAR)
    assert world.ask(b"a") == [[1]]


def test_a_value_that_cannot_be_read_is_counted_once_and_is_none_near_too(world: World) -> None:
    """F1.3."""
    world.redis.put(entity_keys(entity_prefix(NEAR.name, "v1"), [(b"c",)])[0], b"short")
    for _ in range(3):
        assert world.ask(b"c", b"b") == [[None, 2]]
    assert world.store.corrupt_values == 1


def test_a_change_that_is_told_within_a_reply_shifts_no_value(world: World) -> None:
    """As early versions of Redis 6 do with a key that expires while it is read."""
    world.redis.within = [b"invalidate", [b"anything"]]
    with pytest.raises(FeatureStoreDown, match="within a reply"):
        world.ask(b"b", b"c")
    assert world.ask(b"b", b"c") == [[2, None]]


def test_a_node_of_a_cluster_is_refused(world: World) -> None:
    world.redis.mode = b"cluster"
    world.store._tracking.close()
    with pytest.raises(ConfigError, match="Redis Cluster"):
        world.store.ping()


def test_it_says_what_its_caches_do(world: World) -> None:
    """F7.5."""
    assert isinstance(world.store, NearCaching)
    world.ask(b"a", b"b")
    world.ask(b"a", b"b")
    (use,) = world.store.near_caches()
    assert (use.set, use.hits, use.misses, use.changes, use.losses) == ("near", 3, 2, 0, 0)
    world.redis.links[0].open = False
    world.ask(b"a")
    assert world.store.near_caches()[0].losses == 1
