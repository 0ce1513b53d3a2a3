"""A near cache over a Redis and a network that do what they please: F7."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streamml.adapters.redis.catalogue import Pointer, pack_pointer
from streamml.adapters.redis.keys import entity_keys, entity_prefix
from streamml.adapters.redis.layout import Layout, schema_lines
from streamml.adapters.redis.near import Entity, NearRows
from streamml.adapters.redis.near_store import NearFeatureStore
from streamml.adapters.redis.tracking import Tracking
from streamml.batch.column import i8
from streamml.clock import ManualClock
from streamml.errors import FeaturesUnavailable
from streamml.ports.feature_store import FeatureReply, FeatureRequest
from streamml.topology.features import FeatureSet, NearCache
from tests.property.simulated_redis import SimulatedRedis

BOUND_S = 2.0
ENTITIES = [(b"%d" % number,) for number in range(3)]
NEAR = FeatureSet("near", key="k", columns={"x": i8}, near_cache=NearCache(1, f"{BOUND_S:g}s"))
PLAIN = FeatureSet("plain", key="k", columns={"x": i8})
Entities = list[Entity]
some = st.sampled_from([ENTITIES, ENTITIES[:1], ENTITIES[1:], []])
one = st.sampled_from(ENTITIES)
later = st.sampled_from([0.0, 0.5, 1.5, 60.0])


class NearCacheUnderFaults(RuleBasedStateMachine):
    """Its rules are what may happen; `look_up` is what must hold."""

    @initialize(max_bytes=st.sampled_from([500, 1_000, 100_000]), way_s=st.sampled_from([0.0, 0.75]))
    def begin(self, max_bytes: int, way_s: float) -> None:
        self.clock = ManualClock(100.0)
        self.redis = SimulatedRedis(self.clock, way_s)
        self.store: Any = NearFeatureStore("redis://simulated", [NEAR], clock=self.clock)
        self.store._tracking = Tracking(self.redis, self.clock)  # type: ignore[arg-type]
        self.max_bytes = max_bytes
        self.near = self.store._near[Layout.of(NEAR.schema).pointer]
        self.near.rows = NearRows(self.near.layout.size, max_bytes)
        self.numbers = 0
        for declared in (NEAR, PLAIN):
            for version in ("v1", "v2"):
                self.put(declared, version, ENTITIES[0])
        self.cut_over("v1", flushed=False)

    @rule(entity=one, there=st.booleans())
    def change(self, entity: Entity, there: bool) -> None:
        if there:
            self.put(NEAR, self.current, entity)
        else:
            self.redis.put(key(NEAR, self.current, entity), None)

    @rule(version=st.sampled_from(["v1", "v2"]), flushed=st.booleans())
    def cut_over(self, version: str, flushed: bool) -> None:
        if flushed:
            self.redis.flush()
        self.current = version
        for declared in (NEAR, PLAIN):
            layout = Layout.of(declared.schema)
            pointer = Pointer(version, layout.schema_hash, tuple(schema_lines(declared.schema)), 0.0)
            self.redis.put(layout.pointer, pack_pointer(pointer))

    @rule(count=st.integers(1, 5))
    def arrive(self, count: int) -> None:
        for link in self.redis.links:
            link.arrive(count)

    @rule(what=st.sampled_from(["killed", "silent", "away", "back"]))
    def network(self, what: str) -> None:
        self.redis.reachable = what != "away"
        for link in self.redis.links:
            link.open &= what != "killed"
            link.silent |= what == "silent"

    @rule(entities=some, plain=st.none() | some, meanwhile=st.none() | one, after=later)
    def look_up(self, entities: Entities, plain: Entities | None, meanwhile: Entity | None, after: float) -> None:
        self.clock.advance(after)
        if meanwhile is not None:
            self.redis.meanwhile = partial(self.change, meanwhile, there=True)
        asked = [(NEAR, entities)] if plain is None else [(PLAIN, plain), (NEAR, entities)]
        began = self.clock.now()
        try:
            replies = self.store.lookup([FeatureRequest(declared.schema, entities) for declared, entities in asked])
        except FeaturesUnavailable:
            self.network("back")
            return
        finally:
            self.redis.meanwhile = None
        for (declared, entities), reply in zip(asked, replies, strict=True):
            self._held(declared, entities, reply, began - (BOUND_S if declared is NEAR else 0.0))

    @rule(after=later)
    def look_up_all_near(self, after: float) -> None:
        self.look_up(ENTITIES, None, None, after)

    def put(self, declared: FeatureSet, version: str, entity: Entity) -> None:
        self.numbers += 1
        layout = Layout.of(declared.schema)
        value = layout.encode({"x": np.array([self.numbers])}, np.array([self.numbers]), 0)[0]
        self.redis.put(key(declared, version, entity), value)

    def _held(self, declared: FeatureSet, entities: Any, reply: FeatureReply, since: float) -> None:
        layout = Layout.of(declared.schema)
        pointers = self.redis.had(layout.pointer, since)
        assert any(pointer is not None and reply.version.encode() in pointer for pointer in pointers)
        for entity, there, x in zip(entities, reply.present.tolist(), reply.columns["x"].tolist(), strict=True):
            values = list(self.redis.had(key(declared, reply.version, entity), since))
            found = layout.decode(values)
            held = {
                value if present else None
                for present, value in zip(found.present.tolist(), found.columns["x"].tolist(), strict=True)
            }
            assert (x if there else None) in held, (declared.name, entity)

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "near"):
            assert self.near.use().size_bytes <= self.max_bytes


def key(declared: FeatureSet, version: str, entity: Entity) -> bytes:
    return entity_keys(entity_prefix(declared.name, version), [entity])[0]


class TestF7NearCacheUnderFaults(NearCacheUnderFaults.TestCase):  # type: ignore[misc, valid-type]
    """F7.1, F7.2, F7.3: whatever is written, loaded, delayed, lost or cut off, each value was there at most the bound before the
    lookup began, one of a set without a cache when it was asked for, and no more is kept than declared."""
