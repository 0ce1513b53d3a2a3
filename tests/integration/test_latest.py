"""Latest predictions in Redis, beside the topic."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import streamml as sm
from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.sink import MemorySink
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.latest import entries, latest_keys, latest_prefix, packed
from streamml.adapters.redis.latest_sink import SinkAndLatest
from streamml.adapters.redis.latest_writer import LatestWriter
from streamml.adapters.redis.rights import KEEPING, least_rule
from streamml.clock import ManualClock
from streamml.errors import ConfigError, FeatureStoreDown
from streamml.latest import AsyncLatestPredictions, Latest, LatestPredictions
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ports.sink import Delivered, OutboundRecords
from tests.integration.scoring import Job, payment

pytestmark = pytest.mark.integration


def records(*rows: tuple[str, bytes | None, int, int | str, int], topic: str = "out") -> OutboundRecords:
    """Of key, value, time in ms, place and revision."""
    return OutboundRecords(
        topic,
        [row[0].encode() for row in rows],
        [row[1] for row in rows],
        [
            [("streamml", f"1;{row[3] if isinstance(row[3], str) else f't/0/{row[3]}'};m@1;{row[4]};".encode())]
            for row in rows
        ],
        [row[2] for row in rows],
    )


class Beside:
    """A topic in memory and latest predictions in Redis."""

    def __init__(self, url: str, keep_ms: int = 0) -> None:
        self.name = f"latest-{uuid.uuid4().hex[:8]}"
        broker = MemoryBroker(ManualClock())
        broker.create_topic("out")
        broker.create_topic("dlq")
        self.broker = broker
        self.sink = SinkAndLatest(MemorySink(broker), LatestWriter(Server(url), keep_ms), "out", self.name)
        self.reader = LatestPredictions(self.name, url=url)
        self.sink.open()

    def delivered(self, count: int) -> list[int]:
        found: list[int] = []
        end = time.monotonic() + 30
        while len(found) < count:
            assert time.monotonic() < end
            found += [one.token for one in self.sink.completions() if isinstance(one, Delivered)]
            time.sleep(0.001)
        return found


def test_d3_the_latest_of_a_key_is_there_whatever_the_order(redis_server: EmbeddedRedis) -> None:
    """D3.12: by time, then place, then revision."""
    run = Beside(redis_server.url, keep_ms=60_000)
    ordered: list[tuple[int, Any, int]] = [
        (5, 9, 1),
        (6, 1, 0),
        (6, 2, 0),
        (6, 2, 3),
        (2**33, 0, 0),
        (2**33, 2**33, 0),
        (2**33, 2**33, 1),
    ]
    ordered += [
        (2**34, place, revision) for place, revision in (("t/0/5", 7), ("t/1/5", 0), ("t/1/5#0", 0), ("t/1/5#2", 0))
    ]
    for number, (early, late) in enumerate(pairwise(ordered)):
        rows = [(f"k{number}", b"late", *late), (f"k{number}", b"early", *early), (f"k{number}", b"late", *late)]
        run.sink.send(number, [records(*rows), records(("k", b"letter", 0, 0, 0), topic="dlq")])
    assert sorted(run.delivered(len(ordered) - 1)) == list(range(len(ordered) - 1))
    found = run.reader.get_many([f"k{number}" for number in range(len(ordered) - 1)])
    assert [one and one.value for one in found] == [b"late"] * (len(ordered) - 1)
    assert run.reader.get("k") is None
    run.sink.close(1)


def test_a_prediction_has_what_its_header_says_and_a_tombstone_no_value(redis_server: EmbeddedRedis) -> None:
    run = Beside(redis_server.url)
    run.sink.send(1, [records(("a", b"{}", 5, 7, 2), ("ü", None, 6, 8, 0))])
    run.delivered(1)
    assert run.reader.get("a") == Latest(b"{}", "t/0/7", "m@1", 2, "", 5)
    assert run.reader.get("ü") == Latest(None, "t/0/8", "m@1", 0, "", 6)
    run.sink.close(1)


def test_d1_large_predictions_are_stored_in_pieces_that_a_timeout_lasts_for(redis_server: EmbeddedRedis) -> None:
    """D1.8."""
    writer = LatestWriter(Server(redis_server.url, timeout_s=0.2), 20_000)
    keys, values = entries(
        records(*((f"k{row}", bytes(1_000_000), 5, row, 0) for row in range(60))), latest_prefix("x")
    )
    writer.put(1, keys, values)
    assert writer.close(60) == 0


def test_d1_a_time_that_is_none_stops_no_worker(redis_server: EmbeddedRedis) -> None:
    """D1.8: who writes events chooses the times of their records."""
    run = Beside(redis_server.url, keep_ms=60_000)
    run.sink.send(
        1, [records(("a", b"late", 2**63 - 1, 7, 0), ("a", b"early", -(2**63), 8, 0), ("b", b"{}", 2**62, 9, 0))]
    )
    run.delivered(1)
    assert [one and one.value for one in run.reader.get_many(["a", "b"])] == [b"late", b"{}"]
    run.sink.close(1)


def test_a_reader_tells_wrong_names_and_keys_and_what_no_worker_wrote(redis_server: EmbeddedRedis) -> None:
    import redis as client

    wrong: Any
    for wrong in ("", "a:b", None, "\ud800"):
        with pytest.raises(ConfigError, match="The RedisSink's name"):
            LatestPredictions(wrong, url=redis_server.url)
    name = f"latest-{uuid.uuid4().hex[:8]}"
    with LatestPredictions(name, url=redis_server.url) as reader, client.Redis(port=redis_server.port) as raw:
        with pytest.raises(TypeError, match="'UA1545' is one key"):
            reader.get_many("UA1545")
        for wrong in (5, None):
            with pytest.raises(TypeError, match="neither"):
                reader.get(wrong)
        good, torn = latest_keys(name, [b"good", b"torn"])
        raw.set(good, packed(b"{}", b"1;t/0/5;;0;", 5), px=60_000)
        raw.set(torn, b"SMP1", px=60_000)
        assert reader.get("good") is not None
        with pytest.raises(ValueError, match="Under the key b'torn' no worker"):
            reader.get_many(["good", "torn"])


def test_an_asyncio_app_reads_many_keys_at_once_and_hears_of_a_redis_that_is_away(redis_server: EmbeddedRedis) -> None:
    run = Beside(redis_server.url)
    run.sink.send(1, [records(*((f"k{row}", b"%d" % row, 5, row, 0) for row in range(200)))])
    run.delivered(1)
    run.sink.close(1)

    async def read() -> list[bytes | None]:
        async with AsyncLatestPredictions(run.name, url=redis_server.url, waiting=4) as reader:
            found = await asyncio.gather(*(reader.get(f"k{row}") for row in range(201)))
        assert found[200] is None
        return [None if one is None else one.value for one in found[:200]]

    assert asyncio.run(read()) == [b"%d" % row for row in range(200)]

    async def read_away() -> None:
        async with AsyncLatestPredictions(run.name, url="redis://127.0.0.1:1") as reader:
            await reader.get("k")

    with pytest.raises(FeatureStoreDown, match="cannot be reached"):
        asyncio.run(read_away())


def test_d1_nothing_is_delivered_while_redis_is_away_and_nothing_lost_when_it_is_back(own_redis: EmbeddedRedis) -> None:
    """D1.8."""
    run = Beside(own_redis.url)
    own_redis.kill()
    for token in range(50):
        run.sink.send(token, [records(*((f"k{row}", b"%d" % token, token, token, 0) for row in range(20)))])
    deadline = time.monotonic() + 20
    while run.sink.trouble() is None:
        assert run.sink.completions() == []
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "Latest predictions are not taken" in (run.sink.trouble() or "")
    own_redis.start()
    assert sorted(run.delivered(50)) == list(range(50))
    assert run.sink.trouble() is None
    found = run.reader.get_many([f"k{row}" for row in range(20)])
    assert [one and one.value for one in found] == [b"49"] * 20
    assert run.sink.close(5) == 0


@pytest.mark.parametrize(
    ("guarantee", "redis_only"), [("at_least_once", False), ("exactly_once", False), ("at_least_once", True)]
)
def test_d1_d2_a_redis_that_is_away_for_a_while_has_the_predictions_of_the_topic_in_the_end(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path, guarantee: Any, redis_only: bool
) -> None:
    """D1.8, D2.1: Redis stands still under the worker; the topic has each once, Redis the latest of each key."""
    import redis as client

    job = Job(kafka.bootstrap_servers, redis_server.url, tmp_path, guarantee=guarantee, redis_only=redis_only)
    job.latest = None if redis_only else sm.RedisSink(job.name, ttl="1h")
    job.create()
    job.features({"a1": 1.0})
    job.produce([payment(number % 300, amount=float(number)) for number in range(900)])
    stopped = threading.Event()

    def pause() -> None:
        with client.Redis(port=redis_server.port) as raw:
            while not stopped.wait(0.2):
                raw.execute_command("CLIENT", "PAUSE", 100)

    thread = threading.Thread(target=pause, daemon=True)
    thread.start()
    try:
        assert job.run()["predictions"] == 900
    finally:
        stopped.set()
        thread.join()
    with LatestPredictions(job.name, url=redis_server.url) as reader:
        found = reader.get_many([f"p{key}" for key in range(300)])
    assert {one and one.model for one in found} == {"adder@1"}
    scores = {json.loads(one.value or b"")["id"]: json.loads(one.value or b"")["score"] for one in found if one}
    # Each key's three records are of one partition.
    assert scores == {f"p{key}": 601.0 + key for key in range(300)}
    if not redis_only:
        last = {
            (one.record.key or b"").decode(): json.loads(one.record.value or b"")["score"] for one in job.read("out")
        }
        assert last == scores


TOPOLOGY = """
from pathlib import Path
import streamml as sm
from tests.integration.scoring import Job
topology = Job("", "", Path("."), name={name!r}, {latest}).topology
"""


@pytest.mark.parametrize("form", ["beside", "instead"])
def test_d1_a_worker_and_a_redis_that_are_killed_leave_the_latest_of_every_key(
    kafka: EmbeddedKafka, own_redis: EmbeddedRedis, tmp_path: Path, form: str
) -> None:
    """D1.8, D3.12."""
    worker: subprocess.Popen[bytes] | None = None
    try:
        job = Job(kafka.bootstrap_servers, own_redis.url, tmp_path, redis_only=form == "instead")
        job.create()
        job.features({"a1": 1.0})
        assert job.located
        latest = "redis_only=True" if job.redis_only else f"latest=sm.RedisSink({job.name!r})"
        (tmp_path / "paying.py").write_text(TOPOLOGY.format(name=job.name, latest=latest))
        command = [
            sys.executable,
            "-m",
            "streamml",
            "run",
            "paying.py",
            "--brokers",
            job.brokers,
            "--redis-url",
            own_redis.url,
        ]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)

        worker, rounds = start(), 2
        for number in range(rounds):
            job.produce([payment(key, amount=float(1000 * number + key)) for key in range(500)])
            with LatestPredictions(job.name, url=own_redis.url) as reader:
                wait_until(partial(any_above, reader, 1000 * number))
            worker.kill()
            worker.wait()
            own_redis.kill()
            worker = start()
            own_redis.start()
        scored = {key: float(1000 * (rounds - 1) + key) + 1.0 for key in range(500)}
        with LatestPredictions(job.name, url=own_redis.url) as reader:
            wait_until(lambda: latest_scores(reader) == scored)
    finally:
        if worker is not None:
            worker.kill()
            worker.wait()


def in_trouble(writer: LatestWriter) -> bool:
    return writer.trouble is not None


def any_above(reader: LatestPredictions, score: float) -> bool:
    return any(found > score for found in latest_scores(reader).values())


def latest_scores(reader: LatestPredictions) -> dict[int, float]:
    found = reader.get_many([f"p{key}" for key in range(500)])
    return {key: json.loads(one.value or b"")["score"] for key, one in enumerate(found) if one is not None}


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_latest_predictions_need_the_rights_that_are_printed_and_none_is_too_many(redis_server: EmbeddedRedis) -> None:
    import redis as client

    name = f"latest-{uuid.uuid4().hex[:8]}"
    with client.Redis(port=redis_server.port) as raw:
        for left_out in (None, *KEEPING):
            user = f"u{uuid.uuid4().hex[:8]}"
            rule = least_rule(user, [], [one for one in KEEPING if one != left_out], latest=name)
            raw.execute_command(*rule.replace(">PASSWORD", ">hunter2").split())
            writer = LatestWriter(Server(f"redis://{user}:hunter2@127.0.0.1:{redis_server.port}"), 0)
            try:
                keys, values = entries(records(("a", b"{}", 5, 7, 2)), latest_prefix(name))
                if left_out == "ping":
                    with pytest.raises(FeatureStoreDown, match="does not permit"):
                        writer.ping()
                    continue
                writer.ping()
                writer.put(1, keys, values)
                if left_out is None:
                    assert writer.wait(20) == 0
                else:
                    wait_until(partial(in_trouble, writer))
            finally:
                writer.close(0)
                raw.execute_command("ACL", "DELUSER", user)
