"""Slots of a cluster, as a node tells them."""

from __future__ import annotations

import pytest

from streamml.adapters.redis.keys import catalogue_key, entity_prefix, live_key, pointer_key, writers_key
from streamml.adapters.redis.slots import Slots, places_by_slot


def test_a_node_may_tell_its_own_host_as_nothing() -> None:
    """Null, empty or a question mark: the host that was asked."""
    told = [
        [0, 99, [b"a", 1, b"id"], [b"b", 2, b"id"]],
        [100, 100, [None, 3, b"id", [b"hostname", b"x"]]],
        [200, 16383, [b"", 4], [b"?", 5]],
    ]
    slots = Slots.read(told, "asked")
    assert slots.masters == (("a", 1), ("asked", 3), ("asked", 4))
    assert slots.replicas == (("b", 2), ("asked", 5))
    assert [slots.owners[slot] for slot in (0, 99, 100, 101, 199, 200, 16383)] == [
        ("a", 1),
        ("a", 1),
        ("asked", 3),
        None,
        None,
        ("asked", 4),
        ("asked", 4),
    ]
    assert len(slots.owners) == 16384


def test_keys_are_told_apart_by_node_and_by_slot_in_their_order() -> None:
    # Slots by CLUSTER KEYSLOT: foo 12182, bar 5061, hello 866.
    slots = Slots.read([[0, 6000, [b"a", 1]], [6001, 16000, [b"b", 2]]], "a")
    keys = [b"foo", b"bar", b"x{foo}", b"hello", b"y{bar}", b"foo"]
    assert slots.places(keys) == {("b", 2): [0, 2, 5], ("a", 1): [1, 3, 4]}
    assert places_by_slot(keys) == [[0, 2, 5], [1, 4], [3]]
    assert Slots.read([[0, 6000, [b"a", 1]]], "a").places(keys[:2]) == {None: [0], ("a", 1): [1]}


@pytest.mark.parametrize("name", ["route", "a.b-c_d"])
def test_all_that_is_known_of_a_set_is_of_one_slot_and_its_values_are_not(name: str) -> None:
    about = [pointer_key(name), catalogue_key(name), writers_key(name), live_key(name, "live-00000000")]
    assert len(places_by_slot(about)) == 1
    values = [entity_prefix(name, "v1") + b"%d" % number for number in range(100)]
    assert len(places_by_slot(values)) > 90
