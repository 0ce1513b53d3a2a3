"""F1 to F3: features joined to rows, and what happens where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import streamml as sm
from streamml.batch.column import object_array, sealed
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import MicroBatch, Origin
from streamml.batch.outcome import Kind
from streamml.errors import FatalError, FeatureStoreDown, FeaturesUnavailable
from streamml.ports.feature_store import FeatureReply, FeatureRequest
from streamml.stages.lookup import LookUp
from tests.records import failures

HOUR_US = 3_600_000_000
NOW_US = 1_000 * HOUR_US


class Stored:
    """A store of two accounts: 1 from an hour ago, 2 from the day before, 3 from the future."""

    def __init__(self) -> None:
        self.asked: list[list[FeatureRequest]] = []
        self.down: set[str] = set()
        self.version = "v7"
        self.times = {b"1": NOW_US - HOUR_US, b"2": NOW_US - 24 * HOUR_US, b"3": NOW_US + HOUR_US}

    def lookup(self, requests: Sequence[FeatureRequest]) -> list[FeatureReply]:
        self.asked.append(list(requests))
        if self.down & {request.schema.name for request in requests}:
            raise FeaturesUnavailable("Redis is away.")
        return [self._reply(request) for request in requests]

    def _reply(self, request: FeatureRequest) -> FeatureReply:
        names = [entity[-1] for entity in request.entities]
        present = np.array([name in self.times for name in names], bool)
        times = np.array([self.times.get(name, 0) for name in names], np.int64)
        mean = np.array([float(name) if name in self.times else 0.0 for name in names], np.float32)
        return FeatureReply(self.version, present, times, {"mean": sealed(mean)})

    def ping(self) -> None: ...

    def close(self) -> None: ...


def rows(accounts: list[Any], key: str = "account") -> MicroBatch:
    count = len(accounts)
    zeros = np.zeros(count, np.int64)
    origin = Origin(zeros, np.arange(count), np.arange(count), np.full(count, NOW_US // 1000), zeros)
    texts = any(isinstance(one, str) for one in accounts)
    column = object_array(accounts, count) if texts or None in accounts else np.array(accounts, np.int64)
    if None in accounts:
        column = np.ma.MaskedArray(column, mask=[one is None for one in accounts])
    return MicroBatch(origin, {key: column, "country": object_array(["CH"] * count, count)})


def accounts(**changes: Any) -> sm.FeatureSet:
    declared: dict[str, Any] = {"key": "account", "columns": {"mean": sm.f4(default=-1.0)}, "ttl": "12h"}
    return sm.FeatureSet(changes.pop("name", "accounts"), **{**declared, **changes})


def flags(batch: MicroBatch) -> list[str]:
    return [FLAGS.text(int(code)) for code in batch.origin.flags]


def test_f1_one_call_for_all_sets_with_each_entity_once() -> None:
    """F1.1."""
    store = Stored()
    lookup = LookUp("lookup", [accounts(), accounts(name="others", key=("country", "account"))], store, None)
    batch, ended = lookup.apply(rows([1, 1, 1]), 0.0)
    assert ended == []
    assert len(store.asked) == 1
    assert [list(request.entities) for request in store.asked[0]] == [[(b"1",)], [(b"CH", b"1")]]
    assert batch.columns["accounts.mean"].tolist() == batch.columns["others.mean"].tolist() == [1.0, 1.0, 1.0]


def test_f2_f3_missing_stale_and_future_values_become_defaults_and_say_so() -> None:
    """F2.1, F2.2, F3.1."""
    batch, _ = LookUp("lookup", [accounts()], Stored(), None).apply(rows([1, 2, 3, 4]), 0.0)
    assert batch.columns["accounts.mean"].tolist() == [1.0, -1.0, -1.0, -1.0]
    assert flags(batch) == ["accounts@v7", "accounts@v7:stale", "accounts@v7:from_future", "accounts@v7:missing"]


def test_f2_dead_letters_by_policy() -> None:
    """F2.1, F2.2."""
    lookup = LookUp("lookup", [accounts(if_missing="dead_letter", if_stale="dead_letter")], Stored(), None)
    batch, ended = lookup.apply(rows([1, 2, 9]), 0.0)
    assert len(batch) == 1
    assert all(piece.kind is Kind.DEAD_LETTER for piece in ended)
    assert sorted(failure.error for piece in ended for failure in failures(piece)) == ["FeatureMissing", "FeatureStale"]


def test_f2_fail_by_policy_stops_the_worker() -> None:
    """F2.1."""
    with pytest.raises(FatalError, match="offset 1"):
        LookUp("lookup", [accounts(if_missing="fail")], Stored(), None).apply(rows([1, 9]), 0.0)


def test_f2_the_age_counts_from_the_event_time_where_there_is_one() -> None:
    """F2.3."""
    batch = rows([1])
    late = np.array([NOW_US + 20 * HOUR_US], np.int64).view("<M8[us]")
    looked, _ = LookUp("lookup", [accounts()], Stored(), "at").apply(batch.with_columns({"at": late}), 0.0)
    assert flags(looked) == ["accounts@v7:stale"]


def test_a_null_in_the_key_is_a_missing_entity() -> None:
    batch, _ = LookUp("lookup", [accounts()], Stored(), None).apply(rows(["1", None, "2"]), 0.0)
    assert flags(batch) == ["accounts@v7", "accounts@v7:missing", "accounts@v7:stale"]


def test_f2_an_unavailable_set_waits_or_defaults_by_policy() -> None:
    """F2.4."""
    store = Stored()
    store.down = {"optional"}
    sets = [accounts(), accounts(name="optional", if_unavailable="default")]
    batch, _ = LookUp("lookup", sets, store, None).apply(rows([1]), 0.0)
    assert flags(batch) == ["accounts@v7,optional:unavailable"]
    assert batch.columns["optional.mean"].tolist() == [-1.0]
    store.down = {"accounts"}
    with pytest.raises(FeaturesUnavailable):
        LookUp("lookup", sets, store, None).apply(rows([1]), 0.0)


class Down(Stored):
    """A store that does not answer."""

    def lookup(self, requests: Sequence[FeatureRequest]) -> list[FeatureReply]:
        self.asked.append(list(requests))
        raise FeatureStoreDown("Redis is away.")


def test_f2_a_batch_pays_for_the_timeout_of_the_store_once_however_many_sets_it_has() -> None:
    """F2.4."""
    store = Down()
    sets = [accounts(name=name, if_unavailable="default") for name in "abc"]
    batch, _ = LookUp("lookup", sets, store, None).apply(rows([1]), 0.0)
    assert flags(batch) == ["a:unavailable,b:unavailable,c:unavailable"]
    assert len(store.asked) == 1
    with pytest.raises(FeatureStoreDown):
        LookUp("lookup", [*sets, accounts()], store, None).apply(rows([1]), 0.0)
    assert len(store.asked) == 2


def test_f3_an_empty_load_is_not_scored_in_silence_and_a_good_one_opens_the_way() -> None:
    """F3.2, F3.3."""
    store = Stored()
    lookup = LookUp("lookup", [accounts(max_default_ratio=0.5)], store, None)
    lookup.apply(rows([1] * 900), 0.0)
    everyone, store.times = store.times, {}
    with pytest.raises(FeaturesUnavailable, match="max_default_ratio"):
        lookup.apply(rows([1] * 2000), 0.0)
    store.times = everyone
    batch, _ = lookup.apply(rows([1] * 2000), 0.0)
    assert len(batch) == 2000


def scored_before_it_waits(lookup: LookUp, keys: list[int]) -> int:
    """Rows that pass, one batch each, until the lookup waits."""
    for number, key in enumerate(keys):
        try:
            lookup.apply(rows([key]), 0.0)
        except FeaturesUnavailable:
            return number
    return len(keys)


def test_f3_a_restart_with_a_bad_load_does_not_score_another_window_of_defaults() -> None:
    """F3.4."""
    store = Stored()
    store.times = {}
    for _ in range(3):
        restarted = LookUp("lookup", [accounts()], store, None)
        assert scored_before_it_waits(restarted, list(range(1000))) < 20
    restarted = LookUp("lookup", [accounts()], store, None)
    with pytest.raises(FeaturesUnavailable, match="100% of the latest"):
        restarted.apply(rows(list(range(50))), 0.0)


def test_f3_a_new_bad_load_is_found_as_soon_however_long_the_one_before_was_good() -> None:
    """F3.4."""
    store = Stored()
    store.times = {str(n).encode(): NOW_US for n in range(5_000)}
    lookup = LookUp("lookup", [accounts()], store, None)
    assert scored_before_it_waits(lookup, list(range(2_000))) == 2_000
    store.times, store.version = {}, "v8"
    assert scored_before_it_waits(lookup, list(range(1_000))) < 20
    store.version = "v7"
    store.times = {str(n).encode(): NOW_US for n in range(5_000)}
    assert scored_before_it_waits(lookup, list(range(1_000))) == 1_000


def test_f3_a_batch_that_another_set_holds_up_counts_once_however_often_it_is_tried() -> None:
    """F3.1."""
    store = Stored()
    tolerant = accounts(max_default_ratio=0.1)
    strict = accounts(name="others", key="country", max_default_ratio=0.0)
    lookup = LookUp("lookup", [tolerant, strict], store, None)
    batch = rows([9]).with_columns({"country": object_array(["1"], 1)})
    held_up = rows([9]).with_columns({"country": object_array(["8"], 1)})
    for _ in range(1001):
        with pytest.raises(FeaturesUnavailable, match="others"):
            lookup.apply(held_up, 0.0)
    passed, _ = lookup.apply(batch, 0.0)
    assert len(passed) == 1


def test_f3_many_rows_of_one_new_entity_are_no_bad_load() -> None:
    lookup = LookUp("lookup", [accounts()], Stored(), None)
    assert scored_before_it_waits(lookup, [9] * 300) == 300


def test_f3_a_share_within_the_limit_passes_however_it_comes() -> None:
    store = Stored()
    store.times = {str(n).encode(): NOW_US for n in range(0, 5_000, 2)}
    lookup = LookUp("lookup", [accounts(max_default_ratio=0.6)], store, None)
    order = np.random.default_rng(7).permutation(5_000).tolist()
    assert scored_before_it_waits(lookup, order) == 5_000
