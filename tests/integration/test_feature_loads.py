"""Loading versions of feature sets into a real Redis, and what can be done with them."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from streamml.adapters.redis import claims, loader
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.loader import LoadPlan, LoadReport, load
from streamml.adapters.redis.store import RedisFeatureStore
from streamml.adapters.redis.stored import show
from streamml.adapters.redis.versions import prune, rollback, versions
from streamml.batch.column import f4, i8, object_array
from streamml.clock import ManualClock
from streamml.errors import ConfigError, FeaturesUnavailable
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.features import load_file
from streamml.ports.feature_store import FeatureReply, FeatureRequest, FeatureSchema

pytestmark = pytest.mark.integration

HOUR = 3600.0
Batch = dict[str, Any]


class Accounts:
    """A feature set of one test's own, on a server."""

    def __init__(self, url: str) -> None:
        self.server = Server(url)
        self.store = RedisFeatureStore(url)
        self.raw = redis.Redis.from_url(url)
        self.schema = FeatureSchema(f"accounts-{uuid.uuid4().hex[:8]}", (("mean", f4), ("count", i8)))

    def batch(self, accounts: Sequence[int], value: float) -> Batch:
        rows = len(accounts)
        return {
            "account": object_array([b"a%d" % account for account in accounts], rows),
            "event_time": np.full(rows, 7, "M8[us]"),
            "mean": np.full(rows, value, np.float32),
            "count": np.full(rows, int(value)),
        }

    def load(self, *batches: Batch, version: str | None = None, progress: Any = None, clock: Any = None) -> LoadReport:
        plan = LoadPlan(self.schema, ("account",), version=version, total_rows=sum(len(one["mean"]) for one in batches))
        return load(self.server, plan, batches, clock=clock, progress=progress)

    def ask(self, accounts: Sequence[int]) -> FeatureReply:
        return self.store.lookup([FeatureRequest(self.schema, [(b"a%d" % account,) for account in accounts])])[0]

    def states(self) -> dict[str, str]:
        return {known.version: known.state for known in versions(self.server, self.schema.name).versions}

    def stored(self, version: str) -> int:
        """How many values of a version are there."""
        return sum(1 for _ in self.raw.scan_iter(f"streamml:{self.schema.name}:{version}:*", count=10_000))

    def close(self) -> None:
        self.store.close()
        self.raw.close()


@pytest.fixture
def accounts(redis_server: EmbeddedRedis) -> Iterator[Accounts]:
    made = Accounts(redis_server.url)
    yield made
    made.close()


def test_f4_while_100_000_rows_are_loaded_lookups_see_the_version_before_and_then_all_of_the_new_one(
    accounts: Accounts,
) -> None:
    """F1.2, F4.1."""
    everyone, some = range(100_000), range(0, 100_000, 97)
    first = accounts.load(accounts.batch(everyone, 1.0))
    seen: list[tuple[int, str]] = []

    def progress(rows: int, total: int | None) -> None:
        reply = accounts.ask(some)
        assert total == 100_000
        assert reply.present.all()
        assert set(reply.columns["mean"].tolist()) == {1.0}
        seen.append((rows, reply.version))

    parts = [accounts.batch(everyone[start : start + 25_000], 2.0) for start in range(0, 100_000, 25_000)]
    second = accounts.load(*parts, progress=progress)
    assert seen == [(rows, first.version) for rows in (25_000, 50_000, 75_000, 100_000)]
    assert (second.rows, second.entities) == (100_000, 100_000)
    reply = accounts.ask(some)
    assert reply.version == second.version
    assert reply.present.all()
    assert set(reply.columns["mean"].tolist()) == {2.0}
    assert set(reply.event_time.tolist()) == {7}


def test_of_equal_entities_the_last_row_counts_however_they_are_spread(accounts: Accounts) -> None:
    random = np.random.default_rng(3)
    drawn = random.integers(0, 900, 5_000).tolist()
    whole = accounts.batch(drawn, 0.0)
    whole["mean"] = np.arange(5_000, dtype=np.float32)
    cuts = [0, 1, 1, 700, 5_000]
    batches = [{name: column[start:end] for name, column in whole.items()} for start, end in pairwise(cuts)]
    report = accounts.load(*batches)
    last = {account: float(row) for row, account in enumerate(drawn)}
    assert (report.rows, report.entities) == (5_000, len(last))
    assert dict(zip(last, accounts.ask(list(last)).columns["mean"].tolist(), strict=True)) == last


def test_a_load_that_fails_leaves_nothing_and_names_every_bad_row(accounts: Accounts) -> None:
    """F4.4."""
    good = accounts.load(accounts.batch(range(10), 1.0)).version
    first, second = accounts.batch(range(2_000), 2.0), accounts.batch(range(2_000), 2.0)
    second["mean"][[4, 9]] = np.nan, np.inf
    second["account"][4] = b""
    with pytest.raises(ConfigError) as caught:
        accounts.load(first, second, {**accounts.batch([1], 0.0), "mean": np.array([np.nan])}, version="bad")
    assert caught.value.problems == (
        "Row 2005: key column 'account' is empty.",
        "Row 2005: column 'mean' is not finite.",
        "Row 2010: column 'mean' is not finite.",
        "Row 4001: column 'mean' is not finite.",
    )
    assert accounts.states() == {good: "complete"}
    assert accounts.stored("bad") == 0
    assert accounts.ask([1]).version == good


def test_a_load_that_is_interrupted_leaves_nothing(accounts: Accounts) -> None:
    """F4.4."""

    def interrupt(rows: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        accounts.load(accounts.batch(range(2_000), 1.0), version="bad", progress=interrupt)
    assert accounts.stored("bad") == 0
    assert accounts.states() == {}


def test_a_load_that_fails_waits_for_its_writes_before_they_are_removed(
    accounts: Accounts, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F4.4."""
    pid = redis_server.pid
    assert pid is not None
    going_on = threading.Timer(0.2, os.kill, (pid, signal.SIGCONT))
    written: list[int] = []

    def busy(rows: int, total: int | None) -> None:
        """From the first batch on the server is slow to read."""
        if rows == 1:
            os.kill(pid, signal.SIGSTOP)
            going_on.start()

    def removing(*what: Any) -> None:
        written.append(accounts.stored("bad"))
        abandon(*what)

    abandon = claims.abandon
    monkeypatch.setattr(loader, "abandon", removing)
    unfit = {**accounts.batch([1], 0.0), "mean": np.array([np.nan])}
    try:
        with pytest.raises(ConfigError, match="not finite"):
            accounts.load(
                accounts.batch([0], 1.0), accounts.batch(range(1_500), 1.0), unfit, version="bad", progress=busy
            )
    finally:
        os.kill(pid, signal.SIGCONT)
    assert written == [1_500]
    assert accounts.stored("bad") == 0
    assert accounts.states() == {}


def a_file(folder: Path, rows: int) -> Path:
    lines = [f"a{number},1.5,3,2026-01-01" for number in range(rows)]
    path = folder / "set.csv"
    path.write_text("\n".join(["account,mean,count,event_time", *lines, ""]))
    return path


def test_f4_a_load_begins_again_when_redis_is_back(own_redis: EmbeddedRedis, tmp_path: Path) -> None:
    """F4.4."""
    own, path, kills = Accounts(own_redis.url), a_file(tmp_path, 2_000), [own_redis.kill]

    def restarted(done: int, total: int | None) -> None:
        if kills:
            kills.pop()()
            own_redis.start()

    report = load_file(path, own.schema, ("account",), url=own_redis.url, version="v1", progress=restarted)
    assert (report.entities, own.states()) == (2_000, {"v1": "complete"})
    assert own.ask(range(2_000)).present.all()


def test_f4_where_redis_stays_away_it_is_said_what_to_do(
    own_redis: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F4.4."""
    monkeypatch.setattr(claims, "BACK_WITHIN_S", 0.1)
    own, path = Accounts(own_redis.url), a_file(tmp_path, 2_000)
    own.load(own.batch(range(3), 1.0), version="before")
    with pytest.raises(FeaturesUnavailable, match=f"Load again .* safe; `streamml features prune {own.schema.name}`"):
        load_file(path, own.schema, ("account",), url=own_redis.url, progress=lambda done, total: own_redis.kill())
    own_redis.start()
    assert own.ask(range(3)).version == "before"
    assert load_file(path, own.schema, ("account",), url=own_redis.url).entities == 2_000


def test_f4_versions_that_were_in_use_within_the_hour_are_kept_and_can_be_gone_back_to(accounts: Accounts) -> None:
    """F4.2."""
    clock, name = ManualClock(1_700_000_000.0), accounts.schema.name
    for value in range(5):
        accounts.load(accounts.batch(range(3), value), version=f"v{value}", clock=clock)
        clock.advance(10)
    assert prune(accounts.server, name, keep=1, clock=clock) == []
    assert rollback(accounts.server, name, clock=clock).version == "v3"
    assert accounts.ask([1]).columns["mean"].tolist() == [3.0]
    assert rollback(accounts.server, name, "v0", clock=clock).version == "v0"
    clock.advance(HOUR - 35)
    assert prune(accounts.server, name, keep=1, clock=clock) == []
    clock.advance(30)
    gone = prune(accounts.server, name, keep=1, clock=clock)
    assert gone == ["v1", "v2"]
    assert [accounts.stored(version) for version in ("v0", "v1", "v2", "v3", "v4")] == [3, 0, 0, 3, 3]
    assert accounts.ask([1]).columns["mean"].tolist() == [0.0]
    with pytest.raises(ConfigError, match="v1"):
        rollback(accounts.server, name, "v1", clock=clock)
    shown = show(accounts.server, name, ["a1"])
    assert (shown.version, shown.columns) == ("v0", {"mean": 0.0, "count": 0})
    assert show(accounts.server, name, ["nobody"]).columns is None
