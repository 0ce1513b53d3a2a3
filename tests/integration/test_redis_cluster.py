"""Redis Cluster: slots that move, masters that die, and logins by TLS with the rights that are printed."""

from __future__ import annotations

import json
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis as client
from pyarrow.parquet import write_table
from redis.crc import key_slot

import streamml as sm
from loadtests.redis_cluster import Node, RedisCluster, until
from streamml.adapters.redis.connection import Server, pack
from streamml.adapters.redis.keys import pointer_key
from streamml.adapters.redis.loader import LoadPlan, load
from streamml.adapters.redis.near_store import NearFeatureStore
from streamml.adapters.redis.nodes import Nodes
from streamml.adapters.redis.rights import CLUSTER, READING, least_rule
from streamml.adapters.redis.store import RedisFeatureStore
from streamml.adapters.redis.versions import prune, rollback, versions
from streamml.batch.column import f4, object_array
from streamml.clock import ManualClock
from streamml.errors import ConfigError, FeatureStoreDown
from streamml.features import FeatureWriter
from streamml.latest import LatestPredictions
from streamml.ops.acls import least_rights
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.features import load_file, show
from streamml.ops.run import RunOptions, StopSignal, run
from streamml.ports.feature_store import FeatureReply, FeatureRequest, FeatureSchema
from tests.certificates import Authority
from tests.integration.scoring import NOW, Job, payment
from tests.tls_relay import tls_relay

pytestmark = pytest.mark.integration

PASSWORD = "hunter2"


@pytest.fixture
def nodes(redis_cluster: RedisCluster) -> Iterator[Nodes]:
    with closing(Nodes(Server(redis_cluster.url, 20.0))) as found:
        yield found


@pytest.fixture
def mended(redis_cluster: RedisCluster) -> Iterator[RedisCluster]:
    """A cluster whose nodes are killed; it is whole again afterwards."""
    try:
        yield redis_cluster
    finally:
        redis_cluster.mend()


def names(count: int, tag: str = "") -> list[str]:
    """Entities, of one slot with a tag."""
    return [f"{tag}{number}" for number in range(count)]


def filled(nodes: Nodes, count: int) -> list[bytes]:
    """Keys all over the nodes, each with itself as the value."""
    prefix = uuid.uuid4().hex
    keys = [f"{prefix}:{number}".encode() for number in range(count)]
    assert set(nodes.exchange(keys, [pack("SET", key, key) for key in keys])) == {b"OK"}
    return keys


def gets(node: Node) -> int:
    found = node.raw.info("commandstats").get("cmdstat_get", {"calls": 0})
    return int(found["calls"])


def test_f1_every_node_has_its_requests_before_any_reply_is_read(redis_cluster: RedisCluster, nodes: Nodes) -> None:
    """F1.5."""
    keys = filled(nodes, 300)
    first = redis_cluster.owner(keys[0])
    others = {
        redis_cluster.owner(key).port: redis_cluster.owner(key) for key in keys if redis_cluster.owner(key) is not first
    }
    before = {port: gets(node) for port, node in others.items()}
    found: list[Any] = []
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSTOP)
    try:
        thread = threading.Thread(target=lambda: found.extend(nodes.mget(keys)), daemon=True)
        thread.start()
        until(lambda: all(gets(node) > before[port] for port, node in others.items()))
        assert found == []
    finally:
        os.kill(first.pid, signal.SIGCONT)
    thread.join(30)
    assert found == keys
    assert len(others) == 2


def test_a_near_cache_is_refused_before_anything_runs(redis_cluster: RedisCluster) -> None:
    near = sm.FeatureSet("near", key="a", columns={"mean": f4}, near_cache=sm.NearCache())
    with closing(NearFeatureStore(redis_cluster.url, [near])) as store, pytest.raises(ConfigError, match="near_cache"):
        store.ping()


def test_f1_a_slot_that_moved_is_followed_and_then_known(redis_cluster: RedisCluster, nodes: Nodes) -> None:
    """F1.6."""
    keys = filled(nodes, 50)
    source, slot = redis_cluster.owner(keys[0]), key_slot(keys[0])
    target = next(node for node in redis_cluster.nodes if node.is_master and node is not source)
    redis_cluster.begin_move(slot, source, target)
    redis_cluster.move_keys(slot, source, target)
    redis_cluster.end_move(slot, target)
    try:
        assert nodes.mget(keys) == keys
        refused = moved_away(source)
        assert nodes.mget(keys) == keys
        assert moved_away(source) == refused
    finally:
        redis_cluster.begin_move(slot, target, source)
        redis_cluster.move_keys(slot, target, source)
        redis_cluster.end_move(slot, source)
    assert nodes.mget(keys) == keys


def moved_away(node: Node) -> int:
    return int(node.raw.info("errorstats").get("errorstat_MOVED", {"count": 0})["count"])


def test_f1_while_a_slot_moves_its_keys_are_read_and_written_wherever_they_are(redis_cluster: RedisCluster) -> None:
    """F1.6: ASK for those that have moved, and a wait where one call has keys on both sides."""
    declared = streaming()
    same = names(40, "{one}")
    with (
        FeatureWriter(declared, url=redis_cluster.url, retry_for="0ms") as writer,
        closing(RedisFeatureStore(redis_cluster.url)) as store,
    ):
        writer.write(rows(same, 1.0, 1))
        key = f"streamml:{declared.name}:x:5:{{one}}"
        source, slot = redis_cluster.owner(key.encode()), key_slot(key.encode())
        target = next(node for node in redis_cluster.nodes if node.is_master and node is not source)
        assert looked_up(store, declared, same).columns["mean"].tolist() == [1.0] * 40
        redis_cluster.begin_move(slot, source, target)
        try:
            redis_cluster.move_keys(slot, source, target, most=20)
            assert looked_up(store, declared, same).columns["mean"].tolist() == [1.0] * 40
            refuse_readers_without_a_right(redis_cluster, declared, same)
            thread = threading.Thread(target=lambda: writer.write(rows(same, 2.0, 2)), daemon=True)
            thread.start()
            until(lambda: any("errorstat_TRYAGAIN" in node.raw.info("errorstats") for node in (source, target)))
            redis_cluster.move_keys(slot, source, target)
            thread.join(30)
            assert looked_up(store, declared, same).columns["mean"].tolist() == [2.0] * 40
        finally:
            redis_cluster.move_keys(slot, source, target)
            redis_cluster.end_move(slot, target)
        assert looked_up(store, declared, same).columns["mean"].tolist() == [2.0] * 40
        assert writer.write(rows(same, 1.0, 1)).older == 40


def refuse_readers_without_a_right(cluster: RedisCluster, declared: sm.FeatureSet, entities: list[str]) -> None:
    """While keys move, one needs all that is printed."""
    for left_out in (None, "get", *CLUSTER):
        user = f"u{uuid.uuid4().hex[:8]}"
        rule = least_rule(user, [declared.name], READING, cluster=True).replace("PASSWORD", PASSWORD)
        for node in cluster.nodes:
            node.raw.execute_command(*(word for word in rule.split() if word != f"+{left_out}"))
        url = cluster.url.replace("//", f"//{user}:{PASSWORD}@")
        with closing(RedisFeatureStore(url)) as store:
            if left_out is None:
                looked_up(store, declared, entities)
            else:
                with pytest.raises(FeatureStoreDown, match="does not permit"):
                    looked_up(store, declared, entities)


def streaming(name: str | None = None) -> sm.FeatureSet:
    columns = {"mean": sm.f4(default=0.0)}
    return sm.FeatureSet(name or f"c-{uuid.uuid4().hex[:8]}", key="k", columns=columns, kind="streaming", ttl="1h")


def rows(entities: list[str], mean: float, at: int) -> dict[str, Any]:
    count = len(entities)
    times = np.full(count, at).astype("M8[us]")
    return {"k": object_array(entities, count), "mean": np.full(count, mean, "f4"), "event_time": times}


def looked_up(store: RedisFeatureStore, declared: sm.FeatureSet, entities: list[str]) -> FeatureReply:
    reply = store.lookup([FeatureRequest(declared.schema, [(one.encode(),) for one in entities])])[0]
    assert reply.present.all()
    return reply


def test_f4_a_loads_count_is_right_and_pruned_versions_leave_nothing(redis_cluster: RedisCluster) -> None:
    """F4.1: on all nodes; entities that come again count once, and their last row remains."""
    server, clock = Server(redis_cluster.url), ManualClock(1e9)
    plan = LoadPlan(FeatureSchema(f"c-{uuid.uuid4().hex[:8]}", (("mean", f4),)), ("k",))
    name, entities = plan.schema.name, names(1200)
    batches = [rows(entities, 1.0, 1), rows(entities[:700], 2.0, 1), rows(entities[:10] * 2, 3.0, 1)]
    loads = []
    for _ in range(4):
        loads.append(load(server, plan, batches, clock=clock))
        clock.advance(7200)
    assert {(one.rows, one.entities) for one in loads} == {(1920, 1200)}
    with closing(RedisFeatureStore(redis_cluster.url)) as store:
        request = FeatureRequest(plan.schema, [(one.encode(),) for one in entities])
        assert store.lookup([request])[0].columns["mean"].tolist() == [3.0] * 10 + [2.0] * 690 + [1.0] * 500
        assert rollback(server, name).version == loads[-2].version
        assert store.lookup([request])[0].version == loads[-2].version
    assert prune(server, name, clock=clock, keep=2) == [loads[0].version]

    def left() -> int:
        """Each on a master and its replica."""
        return sum(len(node.raw.keys(f"streamml:{name}:*")) for node in redis_cluster.nodes)

    until(lambda: left() == 2 * 3 * 1200)
    assert show(name, ["7"], url=redis_cluster.url).columns == {"mean": 3.0}


def test_what_does_not_go_with_a_cluster_is_told(redis_cluster: RedisCluster, redis_server: EmbeddedRedis) -> None:
    with (
        closing(RedisFeatureStore(f"{redis_cluster.url}/3")) as store,
        pytest.raises(FeatureStoreDown, match="database 0"),
    ):
        store.ping()
    several = f"{redis_server.url.removesuffix('/0')},127.0.0.1:{redis_server.port}/0"
    with closing(RedisFeatureStore(several)) as store, pytest.raises(ConfigError, match="a server by itself; name one"):
        store.ping()


def test_d1_f1_a_master_that_is_killed_under_load_costs_nothing_but_time(
    kafka: EmbeddedKafka, mended: RedisCluster, tmp_path: Path
) -> None:
    """D1.8, F1.6: worker, writer and latest predictions wait until its replica has taken over; none lost, none wrong."""
    job = Job(kafka.bootstrap_servers, mended.url, tmp_path)
    job.latest = sm.RedisSink(job.name)
    job.create()
    accounts = {f"a{number}": float(number) for number in range(200)}
    job.features(accounts)
    declared, stopped, writes = streaming(), threading.Event(), [0]
    fed, stop = Feeder(job), StopSignal()

    def write() -> None:
        with FeatureWriter(declared, url=mended.url, timeout="1s") as writer:
            while not stopped.is_set():
                writer.write(rows(names(100), float(writes[0] + 1), writes[0] + 1))
                writes[0] += 1

    def work() -> None:
        run(job.located, job.settings, RunOptions(), stop)

    threads = [threading.Thread(target=one, daemon=True) for one in (write, fed.run, work)]
    mended.quick()
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(job.read("out")) > 300)
        # The master that says which version is current.
        victim, before = mended.owner(pointer_key(job.name)), writes[0]
        victim.kill()
        until(lambda: mended.owner(pointer_key(job.name)) is not victim)
        until(lambda: writes[0] > before + 5)
        fed.last.set()
        threads[1].join(60)
        until(lambda: len(job.read("out")) >= fed.count)
    finally:
        for one in (stopped, fed.last, stop):
            one.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    scores = {name: score for name, (score, _) in job.predictions().items()}
    assert scores == {f"p{number}": 1.0 + number + number % 200 for number in range(fed.count)}
    with LatestPredictions(job.name, url=mended.url) as reader:
        found = reader.get_many(list(scores))
    assert [json.loads((one and one.value) or b"{}").get("score") for one in found] == [*scores.values()]
    with closing(RedisFeatureStore(mended.url)) as store:
        assert looked_up(store, declared, names(100)).columns["mean"].tolist() == [float(writes[0])] * 100


def test_f4_a_load_over_which_a_master_is_killed_begins_again_and_leaves_nothing_else(
    mended: RedisCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """F1.6, F4.1: with what a dead master may have taken with it, no version is completed."""
    schema, count = FeatureSchema(f"c-{uuid.uuid4().hex[:8]}", (("mean", f4),)), 40_000
    table = pa.table({"k": [str(number) for number in range(count)], "mean": np.ones(count, "f4")})
    path = tmp_path / "set.parquet"
    write_table(
        table.append_column("event_time", pa.array(np.full(count, 1).astype("M8[us]"))), path, row_group_size=500
    )
    killed: list[Node] = []

    def kill(done: int, total: int | None) -> None:
        """In the middle, whoever says which version is current."""
        if done < count and not killed:
            killed.append(mended.owner(pointer_key(schema.name)))
            killed[0].kill()

    mended.quick()
    with caplog.at_level("WARNING", "streamml.ops.features"):
        report = load_file(path, schema, ("k",), url=mended.url, version="v1", progress=kill)
    assert killed
    assert "begun again" in caplog.text
    assert (report.version, report.entities) == ("v1", count)
    with closing(RedisFeatureStore(mended.url)) as store:
        found = store.lookup([FeatureRequest(schema, [(one.encode(),) for one in names(count)])])[0]
    assert found.present.all()
    assert [one.state for one in versions(Server(mended.url), schema.name).versions] == ["complete"]


class Feeder:
    """Payments, a few at a time, until `last` is set."""

    def __init__(self, job: Job) -> None:
        self.last = threading.Event()
        self.count = 0
        self._job = job

    def run(self) -> None:
        while not self.last.is_set():
            numbers = range(self.count, self.count + 100)
            self._job.produce([payment(number, account=f"a{number % 200}") for number in numbers])
            self.count += 100
            self.last.wait(0.05)


@dataclass
class Guarded:
    """Redis behind TLS, and users with the rights that are printed."""

    url: str
    authority: Authority
    admins: list[Any]
    job: Job

    def user(self, purpose: str) -> str:
        """The URL of one who may what is printed for this purpose."""
        printed = least_rights(
            self.job.topology, self.job.settings, f"u{uuid.uuid4().hex[:6]}", cluster=len(self.admins) > 1
        )
        rule = next(one.redis for one in printed if one.purpose == purpose)
        assert rule is not None
        words = rule.replace("PASSWORD", PASSWORD).split()
        for admin in self.admins:
            admin.execute_command(*words)
        return self.url.replace("//", f"//{words[2]}:{PASSWORD}@")

    @property
    def options(self) -> dict[str, Any]:
        return {"ssl_ca_certs": str(self.authority.file)}


@contextmanager
def alone(redis_server: EmbeddedRedis, authority: Authority) -> Iterator[tuple[str, list[Any]]]:
    with tls_relay(redis_server.port, authority.issue("server")) as port, client.Redis(port=redis_server.port) as admin:
        yield f"rediss://127.0.0.1:{port}/0", [admin]


@contextmanager
def clustered(folder: Path, authority: Authority) -> Iterator[tuple[str, list[Any]]]:
    cluster = RedisCluster(folder, replicas=False)
    certificate = authority.issue("server")
    with ExitStack() as relays, closing(cluster):
        for node in cluster.nodes:
            node.announced = relays.enter_context(tls_relay(node.port, certificate))
        cluster.start()
        yield cluster.url.replace("redis://", "rediss://"), [node.raw for node in cluster.nodes]


@pytest.fixture(params=["alone", "clustered"])
def guarded(request: pytest.FixtureRequest, kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Guarded]:
    authority = Authority(tmp_path / "certificates")
    if request.param == "alone":
        made = alone(request.getfixturevalue("redis_server"), authority)
    else:
        made = clustered(tmp_path / "cluster", authority)
    with made as (url, admins):
        yield Guarded(url, authority, admins, WithAll(kafka.bootstrap_servers, url, tmp_path))


@dataclass
class WithAll(Job):
    """A job with a loaded set, a streaming one and latest predictions."""

    @property
    def topology(self) -> sm.Topology:
        self.latest = sm.RedisSink(self.name)
        plain = super().topology
        recent = streaming(f"{self.name}-recent")
        looked_up = sm.FeatureLookup(self.accounts, sm.FeatureSet(**{**declared(recent), "key": "account"}))
        return sm.Topology(**{**declared(plain), "steps": [looked_up, *plain.steps[1:]]})


def declared(of: Any) -> dict[str, Any]:
    return {name: getattr(of, name) for name in of.__dataclass_fields__}


def test_with_tls_each_user_needs_what_is_printed_for_it(guarded: Guarded) -> None:
    """Loader, writer, worker with latest predictions, and their reader, each with a login of its own."""
    job, options = guarded.job, guarded.options
    job.create()
    rows_of_set = {
        "account": object_array(["a1"], 1),
        "mean": np.full(1, 10.0, "f4"),
        "event_time": np.full(1, int(NOW.timestamp() * 1e6)).astype("M8[us]"),
    }
    plan = LoadPlan(FeatureSchema(job.name, tuple(job.accounts.columns.items())), ("account",))
    loader = Server(guarded.user("features"), 5.0, options)
    load(loader, plan, [rows_of_set] * 2)
    assert len(versions(loader, job.name).versions) == 1
    recent = sm.FeatureSet(**{**declared(streaming(f"{job.name}-recent")), "key": "account"})
    with FeatureWriter(recent, url=guarded.user("feature writer"), options=options) as writer:
        writer.write(rows_of_set)
    job.produce([payment(1), payment(2)])
    job.redis_url, job.options = guarded.user("worker"), options
    job.run()
    assert {name: score for name, (score, _) in job.predictions().items()} == {"p1": 12.0, "p2": 13.0}
    with LatestPredictions(job.name, url=guarded.user("latest reader"), options=options) as reader:
        assert [json.loads((one and one.value) or b"{}") for one in reader.get_many(["p1", "p2"])] == [
            {"id": "p1", "score": 12.0},
            {"id": "p2", "score": 13.0},
        ]
    stranger = Authority(job.folder / "others")
    with pytest.raises(FeatureStoreDown, match="certificate") as told:
        LatestPredictions(
            job.name, url=guarded.user("latest reader"), options={"ssl_ca_certs": str(stranger.file)}
        ).get("p1")
    assert PASSWORD not in str(told.value)
