"""A stretch of a topic scored again, on real Kafka and Redis."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.adapters.kafka.tail import read_topic
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.versions import prune
from streamml.clock import ManualClock
from streamml.errors import ConfigError, DeadLetterLimitExceeded
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.replay.registry import record, replays, replays_topic
from streamml.ops.replay.replay import Replay
from streamml.ops.replay.run import Manner, cancel
from streamml.ops.replay.standing import standing
from streamml.ports.source import TopicPartition
from tests.conformance.onnx_files import graph, node, store, value
from tests.integration.replaying import Replaying
from tests.integration.scoring import NOW, Job, model, payment

pytestmark = pytest.mark.integration


@pytest.fixture
def job(kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path) -> Job:
    made = Job(kafka.bootstrap_servers, redis_server.url, tmp_path)
    made.create()
    made.features({"a1": 10.0})
    return made


@pytest.fixture
def filled(job: Job) -> Job:
    """Twenty payments, ten in each partition."""
    job.produce([payment(number) for number in range(20)])
    return job


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_stretch_is_scored_again_and_the_live_group_stays_where_it_is(job: Job) -> None:
    """D3.6, D3.7."""
    job.produce([payment(number) for number in range(100)])
    job.run()
    offsets = KafkaOffsets(job.settings.client())
    places = offsets.partitions([f"{job.name}.in"])
    before = offsets.committed(job.name, places)
    job.features({"a1": 20.0})
    replaying = Replaying(job, "exactly_once")
    done = replaying.run(10, 30)
    assert (done.state, done.into) == ("done", f"{job.name}.out.replay.{done.number}")
    assert done.counts == {"consumed": 40, "predictions": 40, "dead_letters": 0, "filtered": 0}
    written = replaying.written(done)
    assert {id for id, _ in written} == {f"p{number}" for number in range(20, 60)}
    assert {mark.revision for _, mark in written} == {done.number}
    live = {mark.id for _, mark in job.predictions().values()}
    assert len(live & {mark.id for _, mark in written}) == 40
    times = {json.loads(one.record.value or b"")["id"]: one.record.timestamp for one in job.read("out")}
    again = read_topic(job.settings.client(), done.into)
    assert all(times[json.loads(one.record.value or b"")["id"]] == one.record.timestamp for one in again)
    assert offsets.committed(job.name, places) == before
    assert TopicPartition(f"{job.name}.in", 0) in before
    stands = standing(job.topology, job.settings, done.number)
    assert (stands.state, stands.done, stands.total) == ("done", 40, 40)


def at(seconds: float) -> int:
    """A record's timestamp, ms since 1970 UTC."""
    return round((NOW.timestamp() + seconds) * 1000)


def iso(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


def produce_at(job: Job, seconds: list[float], *, partition: int = 0, **changes: Any) -> None:
    """A payment at each of these times after `NOW`."""
    producer = Producer({"bootstrap.servers": job.brokers})
    for number, second in enumerate(seconds):
        value = payment(number, at=iso(second), **changes)
        producer.produce(f"{job.name}.in", value, b"k", partition=partition, timestamp=at(second))
    assert producer.flush(30) == 0


def test_a_range_of_times_goes_up_to_its_end_and_without_it(job: Job) -> None:
    produce_at(job, [0, 10, 20, 30, 40])
    replaying = Replaying(job)
    done = replaying.run(iso(10), iso(30))
    assert replaying.ids(done) == Counter(["p1", "p2"])
    assert [(span.start, span.end) for span in done.spans] == [(1, 3)]


def test_a_range_of_event_times_reads_further_by_the_slack_and_keeps_what_is_in_it(job: Job) -> None:
    producer = Producer({"bootstrap.servers": job.brokers})
    for number, (of_event, of_record) in enumerate([(0, 5), (12, 8), (15, 31), (29, 29), (30, 25), (20, 60)]):
        producer.produce(
            f"{job.name}.in", payment(number, at=iso(of_event)), b"k", partition=0, timestamp=at(of_record)
        )
    producer.flush(30)
    replaying = Replaying(job)
    done = replaying.run(iso(10), iso(30), by="event", slack="5s")
    # The last one's times are further apart than was said.
    assert replaying.ids(done) == Counter(["p1", "p2", "p3"])
    assert (done.counts["filtered"], done.counts["predictions"]) == (2, 3)


def test_it_ends_over_markers_and_aborted_transactions_and_at_a_partition_without_records(job: Job) -> None:
    """D3.7."""
    producer = Producer({"bootstrap.servers": job.brokers, "transactional.id": job.name})
    producer.init_transactions(30)
    for numbers, commit in ((range(3), True), (range(3, 6), False), (range(6, 8), True), (range(8, 9), False)):
        producer.begin_transaction()
        for number in numbers:
            producer.produce(f"{job.name}.in", payment(number), b"k", partition=0)
        producer.flush(30)
        (producer.commit_transaction if commit else producer.abort_transaction)(30)
    replaying = Replaying(job)
    # Offsets: 0 to 2, marker 3, aborted 4 to 6, marker 7, 8 and 9, marker 10, aborted 11, marker 12.
    middle = replaying.run(1, 8, partitions=("0",))
    assert replaying.ids(middle) == Counter(["p1", "p2"])
    whole = replaying.run(0, 13, partitions=("0",))
    assert replaying.ids(whole) == Counter(["p0", "p1", "p2", "p6", "p7"])
    stands = standing(job.topology, job.settings, whole.number)
    assert (stands.state, stands.done, stands.total) == ("done", 13, 13)


def test_versions_and_conditions_are_chosen_and_recorded(job: Job) -> None:
    job.produce([payment(number) for number in range(10)])
    model(job.folder)
    doubled = graph(
        [node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1), node("Add", ["sum", "sum"], ["score"])],
        [value("x", "float32", ["rows", 2])],
        [value("score", "float32", ["rows", 1])],
        {"axis": np.array([1], np.int64)},
    )
    store(job.folder / "models", doubled, "adder", version="2")
    replaying = Replaying(job)
    done = replaying.run(0, 5, models=("2",), where="amount > 5")
    assert done.models == {"adder": "2"}
    assert {(id, mark.model) for id, mark in replaying.written(done)} == {(f"p{n}", "adder@2") for n in range(5, 10)}
    assert done.counts["filtered"] == 5
    with pytest.raises(ConfigError, match=r"no version 7 in .*adder; it has 2, 1"):
        replaying.begin(0, 5, models=("adder=7",))
    shutil.rmtree(job.folder / "models" / "adder" / "2")
    stopped = replace(done, state="running", number=done.number + 1)
    record(job.settings, job.name, stopped)
    with pytest.raises(ConfigError, match=r"no version 2 in .*adder"):
        replaying.resume(stopped.number)


WRONG_RANGES = {
    "empty": ((5, 5), "The range is empty"),
    "without records": ((iso(-20), iso(-10)), "There is pay-.*from 0 up to 10"),
    "reversed": ((iso(10), iso(0)), "The range is reversed"),
    "in the future": ((iso(0), "2100-01-01T00:00:00Z"), "2100.* is in the future"),
    "beyond the end": ((0, 11), r"--to 11 is in the future of pay-\w+.in\[0\], which ends at offset 10"),
    "without a zone": (("2026-01-10T10:00:00", 5), "has no zone. .*T12:00:00Z for UTC"),
    "of two zones": (("2026-01-10T10:00:00Z local", 5), "has a zone, and is said to be local"),
    "before all records": (("1969-12-31T23:59:59.999Z", 5), "is before 1970"),
    "no calendar has it": (("0001-01-01T00:00:00 local", 5), "neither an offset nor a time"),
    "too many digits": (("9" * 5000, 5), "neither an offset nor a time"),
    "not a range": (("yesterday", 5), "'yesterday' is neither an offset nor a time"),
}


@pytest.mark.parametrize(("range", "told"), WRONG_RANGES.values(), ids=WRONG_RANGES.keys())
def test_a_range_that_cannot_be_is_refused_before_anything_is_written(
    filled: Job, range: tuple[object, object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        Replaying(filled).begin(*range)
    assert replays(filled.settings, filled.name) == []


def test_what_retention_has_removed_is_told_and_only_taken_without_when_asked(filled: Job) -> None:
    admin = AdminClient({"bootstrap.servers": filled.brokers})
    for one in admin.delete_records([ClientPartition(f"{filled.name}.in", 0, 4)]).values():
        one.result()
    replaying = Replaying(filled)
    for start, told in ((2, "2 offsets of the range have"), (iso(0), "records of the range may have")):
        with pytest.raises(ConfigError, match=rf"begins at offset 4: {told} been removed by retention"):
            replaying.begin(start, 8)
    assert replays(filled.settings, filled.name) == []
    done = replaying.run(2, 8, partitions=("0",), what_is_left=True)
    assert replaying.ids(done) == Counter(["p8", "p10", "p12", "p14"])


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("out", "is the live prediction topic"),
        ("dlq", "is the live dead-letter topic"),
        ("in", "is what the topology reads"),
    ],
)
def test_a_topic_of_live_traffic_is_no_target(filled: Job, part: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Replaying(filled).begin(0, 5, into=f"{filled.name}.{part}")
    assert replays(filled.settings, filled.name) == []


def test_a_target_is_empty_and_of_one_replay_only(filled: Job) -> None:
    """D3.7."""
    replaying = Replaying(filled)
    into = f"{filled.name}.again"
    first = replaying.begin(0, 5, into=into)
    with pytest.raises(ConfigError, match=rf"Replay {first.number} writes to '{into}' and is not over"):
        replaying.begin(0, 5, into=into)
    assert replaying.finish(first).state == "done"
    with pytest.raises(ConfigError, match=rf"'{into}' has 10 records already"):
        replaying.begin(0, 5, into=into)
    assert len(replays(filled.settings, filled.name)) == 1


def test_a_topic_made_anew_ends_what_was_begun_with_the_one_before(filled: Job) -> None:
    replaying = Replaying(filled)
    replay = replaying.begin(0, 5)
    record(filled.settings, filled.name, replace(replay, topic_ids={f"{filled.name}.in": "another"}))
    with pytest.raises(ConfigError, match="deleted or made anew since replay"):
        replaying.resume(replay.number)


def test_whoever_died_before_the_topics_were_made_goes_on_and_a_topic_that_was_deleted_later_is_told(
    filled: Job,
) -> None:
    replaying = Replaying(filled)
    replay = replaying.begin(0, 10)
    admin = KafkaAdmin(filled.settings.client())
    admin.delete_topics([replay.into, replay.letters])
    until(lambda: not admin.topics([replay.into, replay.letters]))
    assert replaying.resume(replay.number).state == "done"
    assert len(replaying.ids(replay)) == 20

    record(filled.settings, filled.name, replay)
    admin.delete_topics([replay.into])
    until(lambda: not admin.topics([replay.into]))
    with pytest.raises(ConfigError, match=f"{replay.into} was deleted since replay {replay.number} began"):
        replaying.resume(replay.number)
    assert not admin.topics([replay.into])
    record(filled.settings, filled.name, replace(replay, state="failed"))
    assert cancel(filled.topology, filled.settings, replay.number).state == "cancelled"


def test_positions_of_a_replay_whose_record_is_gone_are_never_taken_for_those_of_a_new_one(filled: Job) -> None:
    """D3.7."""
    replaying, admin = Replaying(filled), KafkaAdmin(filled.settings.client())
    assert replaying.run(0, 10, into=f"{filled.name}.one").number == 1
    admin.delete_topics([replays_topic(filled.name)])
    until(lambda: not admin.topics([replays_topic(filled.name)]))
    with pytest.raises(ConfigError, match="Start it again: it gets the next number"):
        replaying.begin(0, 10, into=f"{filled.name}.two")
    found: Replay | None = None
    while found is None:
        with contextlib.suppress(ConfigError):
            found = replaying.run(0, 10, into=f"{filled.name}.two")
    assert found.number > 1
    assert len(replaying.ids(found)) == 20


def test_unknown_names_are_told_all_at_once(filled: Job) -> None:
    with pytest.raises(ConfigError) as told:
        Replaying(filled).begin(0, 5, models=("other=1",), where="amonut > 1", features="nonsense")
    assert len(told.value.problems) == 3
    with pytest.raises(ConfigError, match="no partition '9'"):
        Replaying(filled).begin(0, 5, partitions=("9",))
    with pytest.raises(ConfigError, match="needs --slack"):
        Replaying(filled).begin(iso(0), iso(5), by="event")
    with pytest.raises(ConfigError, match="has no replay 77, nor any other"):
        Replaying(filled).resume(77)


def test_it_waits_while_the_live_group_is_behind_and_goes_on_when_it_is_not(filled: Job) -> None:
    filled.run()
    filled.produce([payment(number) for number in range(20, 40)])
    replaying = Replaying(filled)
    replay = replaying.begin(0, 10)
    ended: list[Replay] = []
    thread = threading.Thread(
        target=lambda: ended.append(replaying.finish(replay, manner=Manner(max_lag=5, patience_s=20))), daemon=True
    )
    thread.start()
    until(lambda: bool(standing(filled.topology, filled.settings, replay.number).by))
    time.sleep(1.0)
    assert standing(filled.topology, filled.settings, replay.number).done == 0
    filled.run()
    thread.join(60)
    assert [one.state for one in ended] == ["done"]
    assert replaying.ids(replay).total() == 20


def test_too_many_dead_letters_stop_it_with_the_reason(job: Job) -> None:
    job.produce([b"nonsense"] * 1200)
    replaying = Replaying(job)
    with pytest.raises(DeadLetterLimitExceeded, match=r"dead letters.*They are in .*replay\.\d+\.dlq.*replay resume"):
        replaying.run(0, 600, max_ratio=0.2)
    (replay,) = replays(job.settings, job.name)
    assert (replay.state, "became dead letters" in replay.reason) == ("failed", True)
    done = replaying.run(0, 600, max_ratio=1.0)
    assert (done.counts["predictions"], done.counts["dead_letters"]) == (0, 1200)
    assert len(list(read_topic(job.settings.client(), done.letters))) == 1200


def test_features_of_a_version_are_read_whichever_is_current_until_it_is_pruned(filled: Job) -> None:
    early = filled.features({"a1": 100.0})
    for mean in (20.0, 30.0):
        filled.features({"a1": mean})
    replaying, pinned = Replaying(filled), f"{filled.name}={early}"
    done = replaying.run(0, 5, features=pinned)
    (flags,) = {mark.flags for _, mark in replaying.written(done)}
    assert flags.startswith(f"{filled.name}@{early}")
    scores = [json.loads(one.record.value or b"")["score"] for one in read_topic(filled.settings.client(), done.into)]
    assert sorted(scores) == [101.0 + number for number in range(10)]
    begun = replaying.begin(0, 5, features=pinned)
    later = ManualClock(time.time() + 7200)
    assert early in prune(Server(filled.redis_url), filled.name, keep=1, clock=later)
    with pytest.raises(ConfigError, match=f"has no version '{early}' \\(any more\\); there are"):
        replaying.begin(0, 5, features=pinned)
    with pytest.raises(ConfigError, match=f"has no version '{early}'"):
        replaying.resume(begun.number)
    with pytest.raises(ConfigError, match="looks up no feature set 'other'"):
        replaying.begin(0, 5, features="other=1")
