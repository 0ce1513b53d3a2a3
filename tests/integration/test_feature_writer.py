"""Streaming feature sets, written into real Redis and read as a worker does."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis as client
from click.testing import CliRunner

import streamml as sm
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.layout import Layout
from streamml.adapters.redis.loader import LoadPlan, load
from streamml.adapters.redis.nodes import Nodes
from streamml.adapters.redis.rights import WRITING, least_rule
from streamml.adapters.redis.rows import Rows
from streamml.adapters.redis.store import RedisFeatureStore
from streamml.adapters.redis.streaming import Stream, StreamWriter
from streamml.adapters.redis.versions import prune
from streamml.batch.column import object_array
from streamml.cli.main import cli
from streamml.clock import ManualClock
from streamml.compose.locate import locate_feature_set
from streamml.errors import ConfigError, FeaturesUnavailable
from streamml.features import AsyncFeatureWriter, FeatureWriter, Written
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ports.feature_store import FeatureReply, FeatureRequest

pytestmark = pytest.mark.integration
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
COLUMNS = {"mean": sm.f4(default=0.0), "landings": sm.i8(default=0)}


def airports(name: str = "", **more: Any) -> sm.FeatureSet:
    name = name or f"airports-{uuid.uuid4().hex[:8]}"
    return sm.FeatureSet(name, **{"key": "airport", "columns": COLUMNS, "kind": "streaming", "ttl": "3h", **more})


def columns(keys: list[str], mean: Any, at: Any) -> dict[str, Any]:
    rows = len(keys)
    times = np.full(rows, at.replace(tzinfo=None) if isinstance(at, datetime) else at, "M8[us]")
    return {"airport": keys, "event_time": times, "mean": np.full(rows, mean, "f4"), "landings": np.arange(rows)}


@pytest.fixture
def store(redis_server: EmbeddedRedis) -> Iterator[RedisFeatureStore]:
    made = RedisFeatureStore(redis_server.url)
    yield made
    made.close()


@pytest.fixture
def raw(redis_server: EmbeddedRedis) -> Iterator[Any]:
    with client.Redis(port=redis_server.port) as made:
        yield made


def ask(store: RedisFeatureStore, declared: sm.FeatureSet, *keys: str) -> FeatureReply:
    return store.lookup([FeatureRequest(declared.schema, [(key.encode(),) for key in keys])])[0]


def test_columns_and_rows_say_the_same(redis_server: EmbeddedRedis, store: RedisFeatureStore) -> None:
    one, other = airports(), airports()
    with FeatureWriter(one, url=redis_server.url) as writer:
        assert writer.write(columns(["JFK", "LAX"], 2.5, NOW)) == Written(2, 0)
    with FeatureWriter(other, url=redis_server.url) as writer:
        rows = [{"airport": key, "mean": 2.5, "landings": place} for place, key in enumerate(("JFK", "LAX"))]
        assert writer.write_rows(rows, event_time=NOW) == Written(2, 0)
    replies = [ask(store, declared, "JFK", "LAX", "EWR") for declared in (one, other)]
    for reply in replies:
        assert reply.present.tolist() == [True, True, False]
        assert reply.columns["landings"].tolist() == [0, 1, 0]
        assert reply.event_time[:2].tolist() == [int(NOW.timestamp() * 1e6)] * 2


def test_keys_are_dates_and_numbers_too_in_arrays_and_in_sequences(
    redis_server: EmbeddedRedis, store: RedisFeatureStore
) -> None:
    declared = airports(key=("day", "gate"))
    days = [date(2026, 1, 30), date(2026, 1, 31)]
    with FeatureWriter(declared, url=redis_server.url) as writer:
        writer.write({"day": days, "gate": [7, 8], "mean": [1.5, 2], "landings": [1, 2]}, event_time=NOW)
        as_arrays: dict[str, Any] = {
            "day": np.array(days, "M8[D]"),
            "gate": np.array([8, 7]),
            "mean": np.ones(2),
            "landings": [3, 4],
        }
        writer.write({**as_arrays, "event_time": days})
    entities = [(b"2026-01-30", b"7"), (b"2026-01-31", b"8"), (b"2026-01-30", b"8"), (b"2026-01-31", b"7")]
    reply = store.lookup([FeatureRequest(declared.schema, entities)])[0]
    assert reply.columns["landings"].tolist() == [1, 2, 3, 4]


def test_f6_the_latest_of_many_writers_in_any_order_is_what_is_there(
    redis_server: EmbeddedRedis, store: RedisFeatureStore
) -> None:
    """F6.2, F6.4: rows of one entity also within a call."""
    declared, keys = airports(), [f"a{number}" for number in range(700)]
    moments = np.random.default_rng(7).permutation(60)
    older = []

    def write(part: Any) -> None:
        with FeatureWriter(declared, url=redis_server.url) as writer:
            for moment in part:
                pair = [columns(keys, float(at), NOW + timedelta(seconds=int(at))) for at in (moment, moment - 1)]
                both = {name: [*pair[0][name], *pair[1][name]] for name in pair[0]}
                older.append(writer.write({**both, "event_time": np.array(both["event_time"])}).older)

    threads = [threading.Thread(target=write, args=(moments[part::3],), daemon=True) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reply = ask(store, declared, *keys)
    assert set(reply.columns["mean"].tolist()) == {59.0}
    assert min(older) >= len(keys)


def test_f6_a_schema_changes_under_readers_and_writers_and_none_reads_the_others_values(
    redis_server: EmbeddedRedis, store: RedisFeatureStore
) -> None:
    """F6.3: the values of both schemas have the same size, so that a wrong read would be numbers."""
    before = airports()
    after = airports(before.name, columns={"share": sm.f4(default=0.0), "landings": sm.i8(default=0)})

    def write() -> None:
        with FeatureWriter(before, url=redis_server.url) as old, FeatureWriter(after, url=redis_server.url) as new:
            for second in range(30):
                at = NOW + timedelta(seconds=second)
                old.write(columns(["JFK"], 1.0, at))
                as_new = columns(["JFK"], 2.0, at)
                as_new["share"] = as_new.pop("mean")
                new.write(as_new)

    with FeatureWriter(before, url=redis_server.url) as writer:
        writer.write(columns(["JFK"], 1.0, NOW))
    with pytest.raises(FeaturesUnavailable, match=r"never written with the declared schema \([0-9a-f]{8}: share:f4"):
        ask(store, after, "JFK")
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    while thread.is_alive():
        assert ask(store, before, "JFK").columns["mean"].tolist() == [1.0]
    thread.join()
    assert ask(store, after, "JFK").columns["share"].tolist() == [2.0]


def test_values_are_kept_for_twice_the_ttl_or_as_long_as_is_said(redis_server: EmbeddedRedis, raw: Any) -> None:
    for keep, expected_s in ((None, 6 * 3600), ("20m", 1200)):
        declared = airports()
        with FeatureWriter(declared, url=redis_server.url, keep=keep) as writer:
            writer.write(columns(["JFK"], 1.0, NOW))
        key = f"streamml:{declared.name}:{Layout.of(declared.schema).live_version}:3:JFK"
        assert expected_s - 60 <= raw.ttl(key) <= expected_s


def test_f6_what_cannot_be_written_is_named_and_nothing_is_written(
    redis_server: EmbeddedRedis, store: RedisFeatureStore
) -> None:
    """F6.6."""
    declared = airports()
    with FeatureWriter(declared, url=redis_server.url) as writer:
        good = columns(["JFK", "LAX"], 1.0, NOW)
        cases: list[tuple[dict[str, Any], str]] = [
            ({**good, "speed": np.zeros(2)}, "no column 'speed'; there are airport, mean, landings, event_time"),
            ({name: good[name] for name in good if name != "mean"}, "Column 'mean' is missing"),
            ({**good, "mean": np.array(["a", "b"])}, "Column 'mean' has type object instead of f4"),
            ({**good, "mean": np.array([1.0, np.nan])}, "Row 2: column 'mean' is not finite"),
            ({**good, "airport": ["JFK", ""]}, "Row 2: key column 'airport' is empty"),
            ({**good, "landings": np.arange(3)}, "has 3 rows instead of 2"),
            ({**good, "landings": [None, 1]}, "Row 1: column 'landings' is null"),
            ({**good, "event_time": [None, NOW]}, "Row 1: event time 'event_time' is null"),
            ({**good, "airport": ["JFK", None]}, "Row 2: key column 'airport' is empty"),
            ({**good, "airport": [1, None]}, "Row 2: key column 'airport' is empty"),
            ({**good, "airport": ["JFK", "\ud800"]}, "Row 2: key column 'airport' is not valid Unicode"),
            (columns([], 1.0, NOW), "no rows to write"),
            ({"airport": [], "event_time": [], "mean": [], "landings": []}, "no rows to write"),
            ({**good, "airport": [bytearray(b"a"), b"b"]}, "a key is text, bytes, an integer or a date"),
            ({**good, "airport": [NOW, NOW.date()]}, "a key is text, bytes, an integer or a date"),
            ({**good, "airport": np.ones((2, 2), int)}, "'airport' has shape"),
            ({**good, "airport": "EW"}, "'airport' is 'EW'; give a numpy array"),
            ({**good, "mean": 1.0}, "'mean' is 1.0; give a numpy array"),
            ({**good, "event_time": [NOW, "2026-01-31"]}, "'event_time' has type object"),
            ({**good, "event_time": np.array([0, 2**60], "M8[s]")}, "Row 2: event time .* the years 1 to 9999"),
            ({**good, "event_time": [datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))] * 2}, "1 to 9999"),
        ]
        twice = "'event_time' and one event time for all rows"
        cases_at: list[tuple[dict[str, Any], Any, str]] = [
            (good, NOW, twice),
            ({name: good[name] for name in good if name != "event_time"}, "2026-01-31", "has type <U10"),
        ]
        for wrong, told in cases:
            with pytest.raises(ConfigError, match=told):
                writer.write(wrong)
        for wrong, at, told in cases_at:
            with pytest.raises(ConfigError, match=told):
                writer.write(wrong, event_time=at)
        with pytest.raises(ConfigError, match="no rows to write"):
            writer.write_rows([])
        with pytest.raises(ConfigError, match="Row 1 is no mapping"):
            writer.write_rows([("JFK", 1.0)])  # type: ignore[list-item] # what a user may do
        with pytest.raises(ConfigError, match="Column 'mean' is not in every row"):
            writer.write_rows([{"airport": "JFK", "mean": 1.0}, {"airport": "LAX"}], event_time=NOW)
    with pytest.raises(FeaturesUnavailable, match="never written"):
        ask(store, declared, "JFK")


def test_a_writer_is_for_a_streaming_set_and_tells_all_that_is_wrong() -> None:
    loaded = sm.FeatureSet("route", key=(), columns={"mean": sm.f4(default=0.0)}, ttl="soon")
    with pytest.raises(ConfigError) as caught:
        FeatureWriter(loaded, keep="never")
    told = " ".join(caught.value.problems)
    for part in ("loaded as versions", "'soon'", "no key", "keep: 'never'"):
        assert part in told
    with pytest.raises(ConfigError) as caught:
        FeatureWriter(airports(ttl=None), keep="0s", retry_for="soon")
    told = " ".join(caught.value.problems)
    for part in ("has no ttl", "keep is '0s'; it has to be longer than nothing", "retry_for: 'soon'"):
        assert part in told


def test_what_would_be_kept_for_ever_or_by_nobody_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        FeatureWriter(airports(), keep="0.1ms", timeout="0s", retry_for="99999999999d", writer="")
    told = " ".join(caught.value.problems)
    for part in ("keep is '0.1ms'", "timeout is '0s'", "retry_for is '99999999999d'", "writer is ''"):
        assert part in told


def test_a_script_that_redis_forgot_is_sent_again(redis_server: EmbeddedRedis, raw: Any) -> None:
    declared = airports()
    with FeatureWriter(declared, url=redis_server.url) as writer:
        writer.write(columns(["JFK"], 1.0, NOW))
        raw.script_flush()
        assert writer.write(columns(["JFK"], 2.0, NOW)) == Written(1, 0)


def test_f6_writes_go_on_after_redis_was_away_and_give_up_after_their_bound(
    own_redis: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """F6.5."""
    declared, keys = airports(), [f"a{number}" for number in range(3000)]
    store = RedisFeatureStore(own_redis.url)
    with FeatureWriter(declared, url=own_redis.url) as writer:
        writer.write(columns(keys, 1.0, NOW))
        own_redis.stop()
        written: list[Written] = []
        later = columns(keys, 2.0, NOW + timedelta(seconds=1))
        thread = threading.Thread(target=lambda: written.append(writer.write(later)), daemon=True)
        thread.start()
        own_redis.start()
        thread.join()
        assert written == [Written(3000, 0)]
        told = [one.getMessage() for one in caplog.records if "wait for Redis" in one.getMessage()]
        assert len(told) == 1
        assert declared.name in told[0]
        assert set(ask(store, declared, *keys).columns["mean"].tolist()) == {2.0}
    own_redis.stop()
    with FeatureWriter(declared, url=own_redis.url, retry_for="300ms") as writer:
        with pytest.raises(FeaturesUnavailable, match=r"Given up after 0\.3 s: 0 of 3,000 rows"):
            writer.write(columns(keys, 3.0, NOW + timedelta(seconds=2)))
        own_redis.start()
        assert writer.write(columns(keys, 3.0, NOW + timedelta(seconds=2))) == Written(3000, 0)
    store.close()


def test_why_redis_takes_nothing_is_told_by_its_cause(own_redis: EmbeddedRedis) -> None:

    def refused(url: str) -> str:
        with (
            FeatureWriter(airports("airports"), url=url, retry_for="0s", timeout="500ms") as writer,
            pytest.raises(FeaturesUnavailable) as caught,
        ):
            writer.write(columns([f"k{row}" for row in range(2000)], 1.0, NOW))
        return str(caught.value)

    with client.Redis(port=own_redis.port) as raw:
        assert "does it not speak TLS" in refused(own_redis.url.replace("redis:", "rediss:"))
        with FeatureWriter(airports("airports"), url=own_redis.url) as writer:
            writer.write(columns(["JFK"], 1.0, NOW))
            raw.config_set("maxmemory", "1mb")
            assert "is out of memory; raise its maxmemory" in refused(own_redis.url)
            raw.config_set("maxmemory", "0")
            raw.execute_command("REPLICAOF", "127.0.0.1", "1")
            assert "is a replica, which takes no writes" in refused(own_redis.url)


def test_asyncio_calls_are_bounded_and_all_arrive(redis_server: EmbeddedRedis, store: RedisFeatureStore) -> None:
    declared = airports()

    async def write_all() -> list[Written]:
        async with AsyncFeatureWriter(declared, url=redis_server.url, waiting=3) as writer:
            calls = [writer.write(columns([f"a{number}"], 1.0, NOW)) for number in range(40)]
            last = writer.write_rows([{"airport": "JFK", "mean": 5, "landings": 1}], event_time=NOW)
            return await asyncio.gather(*calls, last)

    assert asyncio.run(write_all()) == [Written(1, 0)] * 41
    assert ask(store, declared, "JFK", *(f"a{number}" for number in range(40))).present.all()


def shown(redis_server: EmbeddedRedis, *arguments: str) -> Any:
    """What `streamml features …` prints; of ``--json`` the object."""
    told = CliRunner().invoke(cli, ["features", *arguments, "--redis-url", redis_server.url])
    assert told.exit_code == 0, told.output
    return json.loads(told.output) if "--json" in arguments else told.output


@pytest.fixture
def declared_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file with a slow and a fast set of airports, and the sets' common end of name."""
    end = uuid.uuid4().hex[:8]
    text = f"""
import streamml as sm
slow = sm.FeatureSet("slow-{end}", key="airport", columns={{"mean": sm.f4(default=6.5)}}, ttl="36h")
fast = sm.FeatureSet("fast-{end}", key="airport", columns={{"late": sm.f4[2](default=0.25)}}, ttl="1h", kind="streaming",
                     if_missing="dead_letter")
route = sm.FeatureSet("route-{end}", key=("origin", "dest"), columns={{"mean": sm.f4(default=6.5)}})
class Event(__import__("pydantic").BaseModel):
    airport: str
topology = sm.Topology("t", source=sm.Source("t.in", schema=Event, start="earliest"), steps=[sm.FeatureLookup(slow, fast, route)],
                       sink=sm.Sink("t.out", schema=Event), dead_letters=sm.DeadLetterQueue("t.dlq"))
"""
    (tmp_path / "airports.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    return end


def test_features_show_explains_what_a_lookup_makes_of_each_set_of_a_topology(
    redis_server: EmbeddedRedis, declared_file: str
) -> None:
    fast = locate_feature_set("airports.py:fast").found
    slow = locate_feature_set("airports.py:slow").found
    plan = LoadPlan(slow.schema, ("airport",), source="job.parquet")
    now = datetime.now(UTC)
    at = np.array([now.replace(tzinfo=None) - timedelta(hours=40)], "M8[us]")
    load(
        Server(redis_server.url),
        plan,
        [{"airport": object_array(["JFK"], 1), "event_time": at, "mean": np.ones(1, "f4")}],
    )
    with FeatureWriter(fast, url=redis_server.url, writer="arrivals-app") as writer:
        writer.write_rows([{"airport": "JFK", "late": [0.5, 0.75]}], event_time=now - timedelta(minutes=2))
    found = {
        one["set_name"].partition("-")[0]: one
        for one in shown(redis_server, "show", "airports.py", "JFK", "--json")["sets"]
    }
    assert found.keys() == {"slow", "fast"}
    assert (found["fast"]["state"], found["fast"]["verdict"]) == ("fresh", "A lookup uses it.")
    assert 120 <= found["fast"]["age_s"] < 180
    value = found["fast"]["found"]
    assert (value["kind"], value["writer"], value["columns"]) == ("streaming", "arrivals-app", {"late": [0.5, 0.75]})
    assert 7100 < value["expires_in_s"] <= 7200
    assert (found["slow"]["state"], found["slow"]["found"]["writer"]) == ("stale", "job.parquet")
    assert found["slow"]["verdict"] == "It is too old, so the row gets the defaults: mean=6.5."
    told = shown(redis_server, "show", "airports.py:topology", "JFK")
    assert f"fast-{declared_file} is fresh, 2.0 min old. A lookup uses it." in told
    assert "by arrivals-app" in told
    [missing] = shown(redis_server, "show", "airports.py:fast", "LAX", "--json")["sets"]
    assert (missing["state"], missing["verdict"]) == ("missing", "There is none, so the row becomes a dead letter.")
    with FeatureWriter(fast, url=redis_server.url) as writer:
        writer.write({"airport": [b"\xff", "soon"], "late": [[1.0, 1.0]] * 2}, event_time=now + timedelta(days=3))
    assert "fresh" not in (ahead := shown(redis_server, "show", "airports.py:fast", "soon"))
    assert "is from_future, 3.0 days ahead" in ahead
    # As the shell hands over what is no UTF-8.
    assert "is from_future" in shown(redis_server, "show", "airports.py:fast", "\udcff")
    [never] = shown(redis_server, "show", "airports.py", "JFK", "LAX", "--json")["sets"]
    assert never["state"] == "unavailable"
    assert "was never loaded" in never["verdict"]
    assert never["verdict"].endswith("So a worker waits.")
    with client.Redis(port=redis_server.port) as raw:
        raw.unlink(Layout.of(fast.schema).pointer)
    [lost] = shown(redis_server, "show", "airports.py:fast", "JFK", "--json")["sets"]
    assert (lost["state"], lost["found"]) == ("unavailable", None)


def test_features_commands_say_what_a_streaming_set_is(redis_server: EmbeddedRedis, declared_file: str) -> None:
    fast, url = f"fast-{declared_file}", redis_server.url
    with FeatureWriter(locate_feature_set("airports.py:fast").found, url=url, writer="app") as writer:
        writer.write_rows([{"airport": "JFK", "late": [0.5, 0.75]}], event_time=NOW)
    Path("rows.csv").write_text("airport,event_time,late\n")
    for arguments, told in (
        (["load", "rows.csv", "--set", "airports.py:fast"], "is streaming: its values are written in place"),
        (["rollback", fast], "is streaming: its values are written in place, and there is no earlier version"),
        (["show", "airports.py", "a", "b", "c"], "No feature set has a key of 3 parts"),
    ):
        refused = CliRunner().invoke(cli, ["features", *arguments, "--redis-url", url])
        assert isinstance(refused.exception, ConfigError)
        assert told in str(refused.exception)
    [version] = shown(redis_server, "versions", fast, "--json")["versions"]
    assert (version["state"], version["source"]) == ("live", "app")
    assert "live" in shown(redis_server, "versions", fast)
    assert shown(redis_server, "show", fast, "JFK", "--json")["writer"] == "app"


def test_features_show_finds_a_key_that_is_no_text(redis_server: EmbeddedRedis) -> None:
    declared = airports()
    with FeatureWriter(declared, url=redis_server.url) as writer:
        writer.write({"airport": [b"\xff"], "mean": [2.5], "landings": [1]}, event_time=NOW)
    as_typed = os.fsdecode(b"\xff")
    assert shown(redis_server, "show", declared.name, as_typed, "--json")["columns"]["mean"] == 2.5
    assert "mean = 2.5" in shown(redis_server, "show", declared.name, as_typed)


def test_f6_pruning_deletes_a_schema_that_another_took_the_place_of(redis_server: EmbeddedRedis, raw: Any) -> None:
    """F6.3."""
    before = airports()
    after = airports(before.name, columns={"share": sm.f4(default=0.0)})
    clock = ManualClock(NOW.timestamp())
    for declared in (before, after):
        layout = Layout.of(declared.schema)
        writer = StreamWriter(Server(redis_server.url), Stream(layout, "w", 0, 1.0), clock)
        values = {name: np.zeros(1, kind.dtype) for name, kind in declared.columns.items()}
        writer.write(Rows([[b"JFK"]], values, np.zeros(1, np.int64)))
        writer.close()
        clock.advance(7200)
    server = Server(redis_server.url)
    assert prune(server, before.name, clock=clock) == [Layout.of(before.schema).live_version]
    left = {key.decode() for key in raw.scan_iter(f"streamml:*{before.name}*:live-*")}
    version = Layout.of(after.schema).live_version
    assert left == {f"streamml:{{{before.name}}}:{version}", f"streamml:{before.name}:{version}:3:JFK"}
    assert prune(server, before.name, clock=clock) == []


def test_a_schema_that_is_written_again_while_it_is_pruned_stays(
    redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F6.3: a writer says only now and then that it is there."""
    before = airports()
    after = airports(before.name, columns={"share": sm.f4(default=0.0)})
    clock = ManualClock(NOW.timestamp())
    writers = []
    for declared in (before, after):
        writers.append(StreamWriter(Server(redis_server.url), Stream(Layout.of(declared.schema), "w", 0, 1.0), clock))
        values = {name: np.zeros(1, kind.dtype) for name, kind in declared.columns.items()}
        writers[-1].write(Rows([[b"JFK"]], values, np.zeros(1, np.int64)))
        clock.advance(7200)
    exchange = Nodes.exchange

    def deleting(nodes: Nodes, keys: Any, packed: Any) -> Any:
        """Behind the first values that are deleted."""
        replies = exchange(nodes, keys, packed)
        monkeypatch.undo()
        values = {name: np.ones(2, kind.dtype) for name, kind in before.columns.items()}
        writers[0].write(Rows([[b"EWR", b"LAX"]], values, np.zeros(2, np.int64)))
        return replies

    monkeypatch.setattr(Nodes, "exchange", deleting)
    prune(Server(redis_server.url), before.name, clock=clock)
    reader = RedisFeatureStore(redis_server.url)
    try:
        assert ask(reader, before, "EWR", "LAX").present.all()
    finally:
        reader.close()
        for writer in writers:
            writer.close()


def test_a_writer_needs_the_rights_that_are_named_and_none_is_too_many(redis_server: EmbeddedRedis, raw: Any) -> None:
    declared = airports()
    for left_out in (None, *WRITING):
        user = f"u{uuid.uuid4().hex[:8]}"
        rule = least_rule(user, [declared.name], [one for one in WRITING if one != left_out])
        raw.execute_command(*rule.replace(">PASSWORD", ">hunter2").split())
        try:
            url = f"redis://{user}:hunter2@127.0.0.1:{redis_server.port}"
            with FeatureWriter(declared, url=url, retry_for="0ms") as writer:
                if left_out is None:
                    writer.write(columns(["JFK"], 1.0, NOW))
                else:
                    with pytest.raises(FeaturesUnavailable, match=r"does not permit|can't run this command"):
                        writer.write(columns(["JFK"], 1.0, NOW))
        finally:
            raw.execute_command("ACL", "DELUSER", user)
