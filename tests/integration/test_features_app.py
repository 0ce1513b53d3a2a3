"""The Faust app of the fast features: what is in Redis is what a batch job makes of the same arrivals, whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis as client
from confluent_kafka import Consumer, ConsumerGroupState, Producer
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from loadtests.faults.proxy import Proxy
from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.adapters.kafka.client import opened
from streamml.adapters.kafka.probe import GroupProbe
from streamml.adapters.kafka.tail import read_topic
from streamml.adapters.redis.store import RedisFeatureStore
from streamml.cli.main import exit_code_of
from streamml.engine.dead_letters import DeadLetter, Letter, read_letter
from streamml.features import AsyncFeatureWriter
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ports.feature_store import FeatureRequest
from streamml.ports.source import RawRecord, TopicPartition
from streamml.settings.sources import read_settings
from topologies.flight_delay import features_app
from topologies.flight_delay.arrivals import Arrivals, recent_table
from topologies.flight_delay.arrivals_topic import ArrivalsTopic, Record
from topologies.flight_delay.recent_follower import Follower
from topologies.flight_delay.recent_state import SETS

pytestmark = pytest.mark.integration
BEGAN = datetime(2013, 10, 1, tzinfo=UTC)
SESSION_MS = 2000
POISON = (
    b"",
    b"not json",
    b'{"flight_id":"x"}',
    b'{"flight_id":"x","carrier":"UA","dest":"ORD","arrived_at":"2013-10-01T05:00:00Z","delay":"late"}',
    b'{"flight_id":"x","carrier":"UA","dest":"ORD","arrived_at":"2013-10-01T05:00:00","delay":5}',
    b'{"flight_id":"x","carrier":"UA","dest":"ORD","arrived_at":"2999-01-01T00:00:00Z","delay":5}',
    b'{"flight_id":"x","carrier":"UA","dest":"ORD","arrived_at":"0001-01-01T00:00:00Z","delay":5}',
    b'{"flight_id":"x","carrier":"UA","dest":"ORD","arrived_at":"2013-10-01T05:00:00Z","delay":99999999999999999999}',
    b'{"flight_id":"x","carrier":"","dest":"ORD","arrived_at":"2013-10-01T05:00:00Z","delay":5}',
    b'{"flight_id":"x","carrier":"UA","dest":"\xff\xfe","arrived_at":"2013-10-01T05:00:00Z","delay":5}',
)
APP = ("-m", "topologies.flight_delay.features_app")
SLOW_TO_GO_ON = """
import sys
import time

from faust.tables.recovery import Recovery

from topologies.flight_delay import features_app

async def slow(*told):
    time.sleep(0.6)
    await going_on(*told)

going_on = Recovery.on_rebalance
Recovery.on_rebalance = slow
features_app.main(sys.argv[1:])
"""


@dataclass
class Place:
    """Topics, group and database of one test, and the app's processes on them."""

    brokers: str
    redis_url: str
    state: Path
    name: str

    @property
    def arguments(self) -> list[str]:
        own = ["--topic", self.name, "--dead-letters", f"{self.name}.dlq", "--group", self.name]
        return ["--brokers", self.brokers, "--redis-url", self.redis_url, *own]

    def start(
        self, *more: str, program: Sequence[str] = APP, worker: str = "", redis_port: int = 0, log: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """A process; with a name where several run, by another way to Redis, and with what it says in a file."""
        url = f"redis://127.0.0.1:{redis_port}/7" if redis_port else self.redis_url
        command = [sys.executable, *program, *self.arguments, "--redis-url", url]
        named = {"STREAMML_WORKER_ID": worker} if worker else {}
        settings = {"STREAMML_STATE_DIR": str(self.state), "STREAMML_KAFKA_SESSION_TIMEOUT_MS": str(SESSION_MS)}
        settings["TMPDIR"] = str(self.state)
        with nullcontext() if log is None else log.open("wb") as said:
            return subprocess.Popen([*command, *more], env={**os.environ, **settings, **named}, stderr=said)

    def position(self, probe: GroupProbe) -> int:
        where = TopicPartition(self.name, 0)
        return probe.committed([where]).get(where, 0)

    def moves(self, probe: GroupProbe) -> Callable[[], bool]:
        """Whether the group's position is behind where it is now."""
        now = self.position(probe)
        return lambda: self.position(probe) > now

    def letters(self) -> dict[int, DeadLetter]:
        """Dead letters by the offset of their record."""
        found = {}
        for one in read_topic({"bootstrap.servers": self.brokers}, f"{self.name}.dlq"):
            letter = read_letter(one.record)
            assert letter is not None
            assert letter.topic == self.name
            assert letter.message
            found[letter.offset] = letter
        return found

    def bad(self) -> dict[int, bytes | None]:
        """Values of dead letters by the offset of their record."""
        return {offset: letter.value for offset, letter in self.letters().items()}


@pytest.fixture
def place(kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path) -> Iterator[Place]:
    # The sets have one name each, so the test has a database of its own.
    url = redis_server.url.rsplit("/", 1)[0] + "/7"
    with client.Redis.from_url(url) as raw:
        raw.flushdb()
        yield Place(kafka.bootstrap_servers, url, tmp_path, f"arrivals-{uuid.uuid4().hex[:8]}")
        raw.flushdb()


@pytest.fixture
def probe(place: Place) -> Iterator[GroupProbe]:
    made = GroupProbe({"bootstrap.servers": place.brokers}, place.name)
    yield made
    made.close()


@pytest.fixture
def begun() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that end with the test."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def landings(count: int, dice: random.Random) -> list[bytes]:
    """Records of arrivals: out of order by up to 50 minutes, some by hours, some twice."""
    moments = sorted(dice.randrange(36 * 3600) for _ in range(count))
    late = [3000 if dice.random() < 0.97 else 6 * 3600 for _ in moments]
    numbered = sorted(range(count), key=lambda at: moments[at] + dice.randrange(late[at]))
    records = [
        (
            b'{"flight_id":"%d","carrier":"%s","dest":"%s","arrived_at":"%s","delay":%d}'
            % (
                at,
                dice.choice((b"UA", b"B6", b"DL", b"\xc3\x84")),
                b"A%02d" % dice.randrange(30),
                (BEGAN + timedelta(seconds=moments[at])).isoformat().encode(),
                dice.randrange(-30, 90),
            )
        )
        for at in numbered
    ]
    for at in dice.sample(range(count - 40), count // 30):
        records.insert(at + dice.randrange(40), records[at])
    return records


def batch_values(records: Sequence[bytes], part: Any) -> dict[str, tuple[Any, ...]]:
    """What a batch job says of each entity after the last record: event time and columns."""
    table = recent_table(Arrivals.read(records), part)
    names = table.key[part].tolist()
    columns = [
        table.event_time.astype("M8[us]").astype(int).tolist(),
        *(table.columns[one].tolist() for one in COLUMNS),
    ]
    return dict(zip(names, zip(*columns, strict=True), strict=True))


COLUMNS = ("landings", "mean_delay", "late_share")


def stored_values(place: Place, part: Any, entities: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """What a worker finds."""
    store = RedisFeatureStore(place.redis_url)
    try:
        reply = store.lookup([FeatureRequest(SETS[part].schema, [(one.encode(),) for one in entities])])[0]
    finally:
        store.close()
    columns = [reply.event_time.tolist(), *(np.asarray(reply.columns[one]).tolist() for one in COLUMNS)]
    found = dict(zip(entities, zip(*columns, strict=True), strict=True))
    return {name: value for name, value, there in zip(found, found.values(), reply.present, strict=True) if there}


def until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_what_is_left_out_or_repeated_or_never_written_is_made_up_for(place: Place) -> None:
    """Records that a framework skips are read from the topic, repeated ones change nothing, and what a dead process had committed
    but not written is written by the next before anything new arrives."""
    records = landings(600, random.Random(7))
    KafkaAdmin({"bootstrap.servers": place.brokers}).create([NewTopicPlan(place.name, 1)])
    producer = Producer({"bootstrap.servers": place.brokers})
    for record in records:
        producer.produce(place.name, record)
    producer.flush()
    numbered = [(at, RawRecord(None, record, [], int(time.time() * 1000))) for at, record in enumerate(records)]
    asyncio.run(follow(place, numbered))
    for part in SETS:
        expected = batch_values(records, part)
        assert stored_values(place, part, list(expected)) == expected


async def follow(place: Place, records: Sequence[Record]) -> None:
    """Hand records over as badly as one can; the last hundred not at all, as they are committed already."""
    settings = read_settings({"brokers": place.brokers, "redis.url": place.redis_url}).settings
    where = TopicPartition(place.name, 0)

    async def bury(letters: Sequence[Letter]) -> None:
        assert not letters

    async with AsyncExitStack() as ended:
        writers = {part: AsyncFeatureWriter(declared, url=place.redis_url) for part, declared in SETS.items()}
        for one in writers.values():
            await ended.enter_async_context(one)
        topic = ArrivalsTopic(settings, place.name, place.name, timedelta(hours=1))
        ended.callback(topic.close)
        follower = Follower(topic, where, place.name, writers, bury, "test")
        await follower.begin()
        assert follower.position == 0
        await follower.take(records[:100])
        await follower.take(records[50:200])
        await follower.take([*records[250:260], *records[300:500]])
        assert follower.position == 500
        commit(place, len(records))
        await follower.begin()
        assert follower.position == len(records)


def commit(place: Place, offset: int) -> None:
    consumer = Consumer({"bootstrap.servers": place.brokers, "group.id": place.name})
    consumer.commit(offsets=[ClientPartition(place.name, 0, offset)], asynchronous=False)
    consumer.close()


@pytest.mark.timeout(240)
def test_values_are_those_of_a_batch_job_and_dead_letters_the_bad_ones_through_kill_9(
    place: Place, probe: GroupProbe, begun: list[subprocess.Popen[bytes]]
) -> None:
    """Disorder, repeats, poison and tombstones flow; the app is killed again and again, at no moment of its choosing, and ends cleanly.
    Nothing of the killed ones is left on the disk."""
    dice = random.Random(2013)
    good = landings(2_400, dice)
    records: list[bytes | None] = list(good)
    for number in range(60):
        records.insert(dice.randrange(len(records)), POISON[number % len(POISON)])
    records.insert(7, None)
    producer = Producer({"bootstrap.servers": place.brokers, "compression.type": "lz4"})
    begun.append(place.start("--create-topics"))
    until(lambda: place.name in KafkaAdmin({"bootstrap.servers": place.brokers}).topics([place.name]))
    for share in range(2):
        part = records[share * len(records) // 2 : (share + 1) * len(records) // 2]
        for record in part[:400]:
            producer.produce(place.name, record)
        producer.flush()
        until(place.moves(probe))
        for record in part[400:]:
            producer.produce(place.name, record)
        producer.poll(0)
        begun[-1].kill()
        begun.append(place.start())
    producer.flush()
    until(lambda: place.position(probe) == len(records))
    begun[-1].send_signal(signal.SIGTERM)
    assert begun[-1].wait(60) == 0
    for column in SETS:
        expected = batch_values(good, column)
        assert stored_values(place, column, list(expected)) == expected
    bad = {at: record for at, record in enumerate(records) if record in POISON}
    assert place.bad() == bad
    assert not list(place.state.glob("streamml-faust-*"))


class Held(Proxy):
    """Between one process and Redis: what the process sends can be held on its way.

    Attributes:
        waiting: connections on which something was held.
    """

    held = False
    waiting = 0

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self.waiting += self.held
            while self.held:
                await asyncio.sleep(0.01)
            writer.write(data)
            await writer.drain()


@pytest.fixture
def ways(redis_server: EmbeddedRedis) -> Iterator[dict[str, Held]]:
    """Ways to Redis, by the worker that takes it."""
    found = {name: Held(redis_server.port) for name in ("one", "two")}
    for way in found.values():
        way.start()
    yield found
    for way in found.values():
        way.stop()


def follower(place: Place, members: int) -> str:
    """The worker that has the partition, in a group of so many."""
    admin = opened(AdminClient, {"bootstrap.servers": place.brokers})

    def owners() -> list[str]:
        group = admin.describe_consumer_groups([place.name], request_timeout=30)[place.name].result(60)
        if group.state is not ConsumerGroupState.STABLE or len(group.members) != members:
            return []
        return [str(one.group_instance_id) for one in group.members if one.assignment.topic_partitions]

    until(lambda: len(owners()) == 1)
    return owners()[0]


def arrival(number: int, minutes: int) -> bytes:
    """A landing at an airport that no other record is about."""
    moment = (BEGAN + timedelta(days=2, minutes=minutes)).isoformat()
    return b'{"flight_id":"z%d","carrier":"ZZ","dest":"ZZZ","arrived_at":"%s","delay":9}' % (number, moment.encode())


@pytest.mark.timeout(240)
def test_a_second_process_takes_over_from_a_frozen_and_from_a_killed_one_and_what_the_frozen_one_does_late_is_mended(
    place: Place, probe: GroupProbe, begun: list[subprocess.Popen[bytes]], ways: dict[str, Held]
) -> None:
    """One is stopped in the middle of a write, and the other writes the same event time with more in it. Then the late write takes its
    place, and the frozen one wakes. In the end whoever has the partition is killed."""
    records = landings(900, random.Random(1903))
    late = [arrival(1, minutes=30), arrival(2, minutes=20)]
    producer, told = Producer({"bootstrap.servers": place.brokers}), list[bytes]()

    def feed(some: Sequence[bytes]) -> None:
        for one in some:
            producer.produce(place.name, one)
        producer.flush()
        told.extend(some)

    def right(column: Any) -> bool:
        expected = batch_values(told, column)
        return stored_values(place, column, list(expected)) == expected

    running = {}
    for worker, way in ways.items():
        running[worker] = place.start("--create-topics", worker=worker, redis_port=way.port)
        begun.append(running[worker])
    frozen = follower(place, 2)
    feed(records[:300])
    until(lambda: place.position(probe) == len(told))

    ways[frozen].held = True
    feed(late[:1])
    until(lambda: ways[frozen].waiting == len(SETS))
    running[frozen].send_signal(signal.SIGSTOP)
    feed([*late[1:], *records[300:600]])
    until(lambda: place.position(probe) == len(told))
    assert right("dest")
    ways[frozen].held = False
    until(lambda: not right("dest"))
    running[frozen].send_signal(signal.SIGCONT)
    until(lambda: right("dest") and right("carrier"))

    first = follower(place, 2)
    running[first].kill()
    feed(records[600:])
    until(lambda: place.position(probe) == len(told))
    assert right("dest")
    assert right("carrier")
    (last,) = running.keys() - {first}
    running[last].send_signal(signal.SIGTERM)
    assert running[last].wait(60) == 0
    assert place.bad() == {}


def test_what_faust_loses_in_a_groups_first_rebalances_is_read_though_nothing_comes_after_it(
    place: Place, probe: GroupProbe, begun: list[subprocess.Popen[bytes]]
) -> None:
    """Each process is slow to go on after a rebalance, and the records come before it does."""
    records = landings(300, random.Random(5))
    begun += [place.start("--create-topics", program=("-c", SLOW_TO_GO_ON), worker=name) for name in ("one", "two")]
    follower(place, 2)
    producer = Producer({"bootstrap.servers": place.brokers})
    for record in records:
        producer.produce(place.name, record)
    producer.flush()
    until(lambda: place.position(probe) == len(records), seconds=30)
    for part in SETS:
        expected = batch_values(records, part)
        assert stored_values(place, part, list(expected)) == expected


WHENEVER = {"message.timestamp.before.max.ms": str(2**63 - 1), "message.timestamp.after.max.ms": str(2**63 - 1)}
ARRIVALS_BYTES = 5_000_000


def make_topics(place: Place) -> AdminClient:
    """Arrivals that may be large and of any time; dead letters of any size, and of the times that a broker usually takes."""
    brokers = {"bootstrap.servers": place.brokers}
    arrivals = {"max.message.bytes": str(ARRIVALS_BYTES), **WHENEVER}
    letters = {"max.message.bytes": str(2 * ARRIVALS_BYTES), "message.timestamp.after.max.ms": "3600000"}
    KafkaAdmin(brokers).create(
        [NewTopicPlan(place.name, 1, config=arrivals), NewTopicPlan(f"{place.name}.dlq", 1, config=letters)]
    )
    return opened(AdminClient, brokers)


def test_a_record_that_is_large_or_of_no_time_is_a_dead_letter_like_every_other(
    place: Place, probe: GroupProbe, begun: list[subprocess.Popen[bytes]]
) -> None:
    """Three megabytes that do not compress; a time that no calendar has, and that the topic of dead letters does not take."""
    make_topics(place)
    dice = random.Random(62)
    landed = [landing for landing in landings(100, dice) if b"\xc3" not in landing][:3]
    large = dice.randbytes(3_000_000)
    now = int(time.time() * 1000)
    records = [(landed[0], now), (large, now), (b"bad", now), (landed[1], 2**62), (b"bad", 2**63 - 1), (landed[2], now)]
    producer = Producer({"bootstrap.servers": place.brokers, "message.max.bytes": ARRIVALS_BYTES})
    for value, at in records:
        producer.produce(place.name, value, timestamp=at)
    producer.flush()
    begun.append(place.start())
    until(lambda: place.position(probe) == len(records) or begun[-1].poll() is not None)
    assert place.bad() == {1: large, 2: b"bad", 3: landed[1], 4: b"bad"}
    times = {offset: letter.timestamp for offset, letter in place.letters().items()}
    assert (times[1], times[2]) == (now, now)
    assert max(times[3], times[4]) < now + 3_600_000
    for column in SETS:
        expected = batch_values([landed[0], landed[2]], column)
        assert stored_values(place, column, list(expected)) == expected


def test_streamml_lists_shows_and_exports_the_apps_dead_letters(
    place: Place,
    probe: GroupProbe,
    begun: list[subprocess.Popen[bytes]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_topics(place)
    producer = Producer({"bootstrap.servers": place.brokers})
    producer.produce(place.name, POISON[1], headers={"from": b"a tower"})
    producer.produce(place.name, POISON[2], key="ORD")
    producer.flush()
    begun.append(place.start())
    until(lambda: place.position(probe) == 2)

    def answer(command: str, *more: str) -> str:
        where = ["--topic", f"{place.name}.dlq", "--brokers", place.brokers]
        assert exit_code_of(["dlq", command, "topologies/flight_delay", *more, *where]) == 0
        return capsys.readouterr().out

    listed = json.loads(answer("list", "--json"))
    assert [(one["step"], one["error"], one["count"]) for one in listed["reasons"]] == [("recent", "NotAnArrival", 2)]
    assert [(one["topic"], one["offset"]) for one in listed["dead_letters"]] == [(place.name, 0), (place.name, 1)]
    shown = json.loads(answer("show", "0/0", "--json"))
    assert (shown["value"], shown["headers"]) == (POISON[1].decode(), [["from", "a tower"]])
    answer("export", str(tmp_path / "letters"))
    assert [json.loads(line)["key"] for line in (tmp_path / "letters").read_text().splitlines()] == [None, "ORD"]


@pytest.mark.parametrize(("topic", "told"), [("..", "--topic: '..' cannot be"), ("nobodys", "no topic 'nobodys'")])
def test_a_topic_of_dead_letters_that_cannot_be_or_is_not_there_is_told(
    place: Place, topic: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["topologies/flight_delay", "--topic", topic, "--brokers", place.brokers]
    assert exit_code_of(["dlq", "list", *arguments]) == 2
    assert told in capsys.readouterr().err


def resize(admin: AdminClient, topic: str, most: int) -> None:
    of = ConfigResource(ResourceType.TOPIC, topic)
    of.add_incremental_config(ConfigEntry("max.message.bytes", str(most), incremental_operation=AlterConfigOpType.SET))
    admin.incremental_alter_configs([of])[of].result(30)


def test_a_crash_ends_at_once_with_a_sentence_and_one_that_waited_for_a_broker_goes_on(
    place: Place, probe: GroupProbe, begun: list[subprocess.Popen[bytes]], kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """The topic of dead letters takes none any more, until somebody sees to it. Meanwhile two wait for a broker; one of them is stopped."""
    logs = {name: tmp_path / name for name in ("crash", "stopped", "going on")}
    way = Proxy(int(kafka.bootstrap_servers.rpartition(":")[2]))
    stopped, going_on = (
        place.start("--brokers", f"127.0.0.1:{way.port}", log=logs[name]) for name in ("stopped", "going on")
    )
    begun += [stopped, going_on]
    admin, producer = make_topics(place), Producer({"bootstrap.servers": place.brokers})
    begun.append(place.start(log=logs["crash"]))
    producer.produce(place.name, b"bad")
    producer.flush()
    until(lambda: place.position(probe) == 1)
    resize(admin, f"{place.name}.dlq", 100)
    producer.produce(place.name, b"bad too")
    producer.flush()
    assert begun[-1].wait(30) == 3
    said = logs["crash"].read_text()
    assert said.count("Error: ") == 1
    assert "max.message.bytes" in said
    assert "Traceback" not in said
    assert place.position(probe) == 1

    resize(admin, f"{place.name}.dlq", 2 * ARRIVALS_BYTES)
    until(lambda: all("Attempt 1 to start" in logs[name].read_text() for name in ("stopped", "going on")))
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(30) == 0
    way.start()
    try:
        until(lambda: place.position(probe) == 2)
    finally:
        way.stop()
    assert place.bad() == {0: b"bad", 1: b"bad too"}


def test_dead_letters_that_could_not_be_as_large_as_arrivals_are_told_at_once(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    KafkaAdmin({"bootstrap.servers": place.brokers}).create(
        [NewTopicPlan(place.name, 1), NewTopicPlan(f"{place.name}.dlq", 1)]
    )
    assert features_app.main(place.arguments) == 2
    assert "Set its max.message.bytes" in capsys.readouterr().err


def test_topics_that_do_not_fit_are_told_at_once(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """No dead-letter topic, and arrivals spread over partitions: two problems, two sentences, and nothing is begun."""
    KafkaAdmin({"bootstrap.servers": place.brokers}).create([NewTopicPlan(place.name, 3)])
    assert features_app.main(place.arguments) == 2
    said = capsys.readouterr().err
    assert f"{place.name}.dlq" in said
    assert "3 partitions" in said
