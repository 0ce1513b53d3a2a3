"""Values that are kept near: what is found, and how much is kept."""

from __future__ import annotations

import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamml.adapters.redis.near import Entity, NearRows, NearSet, Words
from streamml.batch.column import f4
from streamml.errors import ConfigError
from streamml.topology.features import FeatureSet, NearCache

ROW_BYTES = 24


def rows_of(numbers: list[int]) -> Words:
    return np.repeat(np.array(numbers, np.uint64)[:, None], ROW_BYTES // 8, axis=1)


def entities_of(numbers: list[int], parts: int) -> list[Entity]:
    return [(b"%d" % number, *[b"x"] * (parts - 1)) for number in numbers]


def rows_of_size(row_bytes: int, count: int) -> Words:
    return np.zeros((count, row_bytes // 8), np.uint64)


batches = st.lists(st.tuples(st.sampled_from(["use", "forget"]), st.sets(st.integers(0, 40), max_size=12)), max_size=40)


@given(batches, st.sampled_from([400, 2_000, 8_000, 100_000]), st.sampled_from([1, 2]))
def test_f7_what_is_found_is_what_was_put_last_and_never_more_than_may_be(
    asked: list[tuple[str, set[int]]], max_bytes: int, parts: int
) -> None:
    """F7.3."""
    near, version = NearRows(ROW_BYTES, max_bytes), dict.fromkeys(range(41), 0)
    for what, chosen in asked:
        numbers = sorted(chosen)
        entities = entities_of(numbers, parts)
        if what == "forget":
            for number, entity in zip(numbers, entities, strict=True):
                near.forget(entity)
                version[number] += 100
            continue
        found, missing = near.find(entities)
        now = rows_of([number + version[number] for number in numbers])
        there = np.setdiff1d(np.arange(len(numbers)), missing)
        assert (found[there] == now[there]).all()
        near.put([entities[place] for place in missing.tolist()], now[missing])
        assert near.size_bytes <= max_bytes


def test_f7_what_is_used_all_the_time_stays() -> None:
    """F7.3: the first entity is used in every batch, the others once."""
    near = NearRows(ROW_BYTES, 100_000)
    for start in range(1, 5_000, 50):
        entities = entities_of([0, *range(start, start + 50)], 1)
        _, missing = near.find(entities)
        assert (0 in missing.tolist()) == (start == 1)
        near.put([entities[place] for place in missing.tolist()], rows_of([0] * len(missing)))


def test_f7_room_that_was_given_up_is_used_again() -> None:
    """F7.3: an entity that changes all the time pushes no other out."""
    near, entities = NearRows(ROW_BYTES, 20_000), entities_of(list(range(20)), 1)
    near.put(entities, rows_of(list(range(20))))
    for number in range(1_000):
        near.forget(entities[0])
        near.put(entities[:1], rows_of([number]))
    found, missing = near.find(entities)
    assert found[:, 0].tolist() == [999, *range(1, 20)]
    assert not len(missing)


@pytest.mark.parametrize(("parts", "row_bytes"), [(1, 32), (1, 256), (3, 88)])
def test_f7_the_bytes_that_are_counted_are_no_less_than_those_that_are_taken(parts: int, row_bytes: int) -> None:
    """F7.3: by Python's own count, whenever a dictionary may just have grown. Rows are counted as they are."""
    near, step = NearRows(row_bytes, 100_000_000), 500
    tracemalloc.start()
    try:
        for start in range(0, 60_000, step):
            near.put(entities_of(list(range(start, start + step)), parts), rows_of_size(row_bytes, step))
            taken, _ = tracemalloc.get_traced_memory()
            assert taken <= near.size_bytes - (start + step) * row_bytes
    finally:
        tracemalloc.stop()


def test_the_share_of_hits_is_near_that_of_a_cache_that_orders_all_by_use() -> None:
    """On a stream where few entities make most of the rows, as Zipf's law has it: 20,000 entities, room for a quarter of them."""
    random, entities, held = np.random.default_rng(7), 20_000, 5_000
    weight = 1.0 / np.arange(1, entities + 1)
    stream = random.choice(entities, 200_000, p=weight / weight.sum())
    one = NearRows(ROW_BYTES, 10**9)
    one.put(entities_of([10_000], 1), rows_of([0]))
    near, least_recent = NearRows(ROW_BYTES, one.size_bytes * held), OrderedDict[int, None]()
    hits, best, asked = 0, 0, 0
    for start in range(0, len(stream), 500):
        numbers = np.unique(stream[start : start + 500]).tolist()
        wanted = entities_of(numbers, 1)
        _, missing = near.find(wanted)
        near.put([wanted[place] for place in missing.tolist()], rows_of([0] * len(missing)))
        hits, asked = hits + len(numbers) - len(missing), asked + len(numbers)
        for number in numbers:
            best += number in least_recent
            least_recent[number] = None
            least_recent.move_to_end(number)
        while len(least_recent) > held:
            least_recent.popitem(last=False)
    assert hits / asked > best / asked - 0.01


@pytest.mark.parametrize("max_mb", [10**9, 10**18])
def test_more_memory_than_there_is_is_told_as_that(max_mb: int) -> None:
    declared = FeatureSet("plans", key="k", columns={"x": f4}, near_cache=NearCache(max_mb))
    with pytest.raises(ConfigError, match=r"'plans' has max_mb 1,0.* more memory than there is"):
        NearSet.of(declared)
