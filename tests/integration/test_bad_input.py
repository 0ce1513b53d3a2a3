"""What each kind of bad input gets, on the whole system: real broker, real Redis, a real model."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import redis as client
from confluent_kafka import Producer

import streamml as sm
from streamml.errors import (
    FatalError,
    FeaturesUnavailable,
    SettingsError,
    SourceUnavailable,
    TopologyError,
    TransientError,
)
from streamml.ops.dead_letters import read_dead_letters
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.process import free_port
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.run import RunOptions, StopSignal, run
from streamml.settings.settings import WorkerSettings
from tests.integration.scoring import NOW, Job, Payment, payment

pytestmark = pytest.mark.integration


@pytest.fixture
def job(kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path) -> Job:
    return Job(kafka.bootstrap_servers, redis_server.url, tmp_path)


GOOD = payment(0)
BAD: dict[str, bytes] = {
    "not JSON": b"hello",
    "half a record": GOOD[: len(GOOD) // 2],
    "wrong type": payment(1, amount="much"),
    "missing field": b'{"id": "p1"}',
    "empty": b"",
    "deep nesting": b'{"id":"p1","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NaN": GOOD.replace(b"1.0", b"NaN"),
    "infinite": GOOD.replace(b"1.0", b"1e400"),
    "huge integer": payment(1, count=2**63),
    "invalid UTF-8": GOOD.replace(b"a1", b"\xff\xfe"),
    "duplicate key": GOOD.replace(b"{", b'{"id":"other",', 1),
    "forged rows, opening": GOOD + b"," + GOOD,
    "forged rows, first half": GOOD[:-1],
    "forged rows, second half": b'"amount": 2.0}',
    "an array of records": b"[" + GOOD + b"]",
    "too large": payment(1, note="x" * 5_000_000),
}


def test_e3_each_bad_record_alone_is_a_dead_letter_and_its_neighbours_are_scored_right(job: Job) -> None:
    """E1.1, E3.3."""
    job.create(max_message_bytes=8_000_000)
    job.features({"a1": 10.0})
    records: list[bytes | None] = []
    for number, bad in enumerate(BAD.values()):
        records += [payment(100 + number), bad]
    job.produce([*records, payment(999)])

    summary = job.run()

    assert (summary["predictions"], summary["dead_letters"]) == (len(BAD) + 1, len(BAD))
    scores = job.predictions()
    assert {id: score for id, (score, _) in scores.items()} == {
        f"p{number}": 1.0 + number + 10.0 for number in [*range(100, 100 + len(BAD)), 999]
    }
    letters = job.letters()
    assert sorted(value or b"" for value, _, _ in letters) == sorted(BAD.values())
    assert {error for _, error, _ in letters} == {"DecodeError"}
    assert all(len(message) > 5 and "other" not in message for _, _, message in letters)


@pytest.mark.parametrize("policy", ["drop", "forward", "dead_letter"])
def test_e4_tombstones_follow_their_policy(job: Job, policy: str) -> None:
    """E4.3."""
    job.source = {"on_tombstone": policy}
    job.create()
    job.features({"a1": 10.0})
    job.produce([payment(1), None, payment(2)])
    summary = job.run()
    ended = {name: summary[name] for name in ("predictions", "dead_letters", "filtered")}
    expected = {"drop": (2, 0, 1), "forward": (3, 0, 0), "dead_letter": (2, 1, 0)}[policy]
    assert tuple(ended.values()) == expected
    tombstones = [one for one in job.read("out") if one.record.value is None]
    assert [one.record.key for one in tombstones] == ([b"k"] if policy == "forward" else [])
    # A null would delete the letter from its compacted topic.
    letters = [None] if policy == "dead_letter" else []
    assert [one.value for one in read_dead_letters(job.topology, job.settings)] == letters
    assert [one.record.value for one in job.read("dlq")] == [b"" for _ in letters]


def test_f2_f3_unknown_old_and_future_features_are_defaulted_and_flagged(job: Job) -> None:
    """F2.1, F2.2, F2.3, F3.1."""
    job.create()
    version = job.features({"a1": 10.0})
    later = (NOW + timedelta(days=3)).isoformat()
    earlier = (NOW - timedelta(days=3)).isoformat()
    job.produce([payment(1), payment(2, "nobody"), payment(3, at=later), payment(4, at=earlier)])
    summary = job.run()
    flags = {id: mark.flags for id, (_, mark) in job.predictions().items()}
    assert flags == {
        "p1": f"{job.name}@{version}",
        "p2": f"{job.name}@{version}:missing",
        "p3": f"{job.name}@{version}:stale",
        "p4": f"{job.name}@{version}:from_future",
    }
    assert sorted(score for score, _ in job.predictions().values() if score < 0) == [-997.0, -996.0, -995.0]
    assert summary["flags"] == dict.fromkeys(flags.values(), 1)


def test_f2_a_dead_letter_by_policy_names_the_set(job: Job) -> None:
    """F2.1."""
    job.policies = {"if_missing": "dead_letter"}
    job.create()
    job.features({"a1": 10.0})
    job.produce([payment(1), payment(2, "nobody")])
    job.run()
    assert list(job.predictions()) == ["p1"]
    ((value, error, message),) = job.letters()
    assert (value, error) == (payment(2, "nobody"), "FeatureMissing")
    assert job.name in message


def test_f2_fail_by_policy_stops_and_commits_nothing(job: Job) -> None:
    """E1.3, F2.1."""
    job.policies = {"if_missing": "fail"}
    job.create()
    job.features({"a1": 10.0})
    job.produce([payment(1, "nobody")])
    with pytest.raises(FatalError, match="the topology says to fail"):
        job.run()
    job.policies = {}
    assert job.run()["predictions"] == 1


def test_a_truncated_vector_in_redis_is_a_missing_value(job: Job, redis_server: EmbeddedRedis) -> None:
    """F1.3."""
    job.create()
    version = job.features({"a1": 10.0})
    with client.Redis(port=redis_server.port) as raw:
        key = f"streamml:{job.name}:{version}:2:a1"
        raw.set(key, raw.get(key)[:-3])
    job.produce([payment(1)])
    job.run()
    assert job.predictions()["p1"][1].flags == f"{job.name}@{version}:missing"


def test_f4_another_schema_in_redis_is_told_before_anything_is_consumed(job: Job) -> None:
    """F4.3."""
    job.create()
    job.features({"a1": 10.0}, columns={"mean": sm.f8(default=0.0)})
    with pytest.raises(TopologyError, match="another schema"):
        job.run()


def test_l1_everything_that_is_wrong_is_told_at_once_before_anything_is_consumed(job: Job) -> None:
    """E1.4, L1.1, L1.2."""
    with pytest.raises(TopologyError) as missing:
        job.run()
    topics, features = missing.value.problems[:3], missing.value.problems[3:]
    assert all("There is no topic" in one for one in topics)
    assert ["never loaded" in one for one in features] == [True]

    job.create(max_message_bytes=20_000_000)
    job.produce([b"garbage"] * 3)
    located = job.located
    (job.folder / "models" / "adder" / "1" / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(TopologyError) as wrong:
        run(located, job.settings, RunOptions(), StopSignal())
    for words in ("model.onnx", "Set its max.message.bytes", "3 of the latest 3 records", "never loaded"):
        assert any(words in one for one in wrong.value.problems)


def test_d2_a_sink_without_order_is_refused_with_transactions(job: Job) -> None:
    """D2.4."""
    job.sink = {"order": "none"}
    job.create()
    job.features({"a1": 10.0})
    worker = WorkerSettings(processing_guarantee="exactly_once")
    with pytest.raises(TopologyError, match='order="partition"'):
        run(job.located, job.settings.model_copy(update={"worker": worker}), RunOptions(), StopSignal())


def test_l1_a_sample_does_not_keep_a_group_from_coming_back(job: Job) -> None:
    """L1.4."""
    job.create()
    job.features({"a1": 10.0})
    job.produce([payment(1)])
    job.run()
    job.produce([b"garbage"] * 5)
    assert job.run()["dead_letters"] == 5


def test_l1_what_the_dead_letter_limit_allows_passes_the_sample(job: Job) -> None:
    """L1.4."""
    job.max_ratio = 1.0
    job.create()
    job.features({"a1": 10.0})
    job.produce([b"garbage"] * 5)
    assert job.run()["dead_letters"] == 5


def test_e3_a_dead_letter_topic_that_is_too_small_is_told(job: Job) -> None:
    """E3.4."""
    job.create(max_message_bytes=20_000_000)
    job.features({"a1": 10.0})
    with pytest.raises(TopologyError, match=r"Set its max\.message\.bytes"):
        job.run()


def test_one_worker_identity_is_for_one_process(job: Job) -> None:
    job.create()
    job.features({"a1": 10.0})
    settings = job.settings.model_copy(update={"worker_id": "the-one"})
    stop = StopSignal()
    started = threading.Event()
    first = threading.Thread(
        daemon=True,
        target=run,
        args=(job.located, settings, RunOptions(), stop),
        kwargs={"started": lambda engine, observer: started.set()},
    )
    first.start()
    try:
        assert started.wait(20)
        with pytest.raises(SettingsError, match="the-one"):
            run(job.located, settings, RunOptions(), StopSignal())
    finally:
        stop.set()
        first.join()


def test_no_broker_at_the_start_is_waited_for_or_told(job: Job) -> None:
    """L1.3."""
    lonely = Job(f"127.0.0.1:{free_port()}", job.redis_url, job.folder)
    lonely.features({"a1": 10.0})
    with pytest.raises(SourceUnavailable, match="did not answer"):
        run(lonely.located, lonely.settings, RunOptions(patience_s=0.1), StopSignal())


def test_no_redis_at_the_start_is_waited_for_or_told(
    kafka: EmbeddedKafka, own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    """L1.3."""
    job = Job(kafka.bootstrap_servers, own_redis.url, tmp_path)
    job.create()
    own_redis.stop()
    with pytest.raises(FeaturesUnavailable, match="cannot be reached"):
        run(job.located, job.settings, RunOptions(patience_s=0.1), StopSignal())


@pytest.mark.parametrize("policy", ["wait", "default"])
def test_f2_a_redis_that_goes_away_is_waited_for_or_defaulted(
    kafka: EmbeddedKafka, own_redis: EmbeddedRedis, tmp_path: Path, policy: str
) -> None:
    """E1.2, F2.4."""
    job = Job(kafka.bootstrap_servers, own_redis.url, tmp_path, policies={"if_unavailable": policy})
    job.create()
    version = job.features({"a1": 10.0})
    stop = StopSignal()
    running: list[object] = []
    worker = threading.Thread(
        daemon=True,
        target=lambda: run(
            job.located, job.settings, RunOptions(), stop, started=lambda composed, _: running.append(composed.engine)
        ),
    )
    worker.start()
    try:
        job.produce([payment(n) for n in range(50)])
        wait_for(job, 50)
        own_redis.stop()
        job.produce([payment(n) for n in range(50, 100)])
        if policy == "default":
            wait_for(job, 100)
        else:
            engine = running[0]
            while not engine.statistics.retries:  # type: ignore[attr-defined]
                assert worker.is_alive()
                worker.join(0.02)
        own_redis.start()
        job.produce([payment(n) for n in range(100, 150)])
        wait_for(job, 150)
    finally:
        stop.set()
        worker.join()
    flags = {id: mark.flags for id, (_, mark) in job.predictions().items()}
    assert len(flags) == 150
    assert {flags[f"p{n}"] for n in range(50)} == {f"{job.name}@{version}"}
    during = {flags[f"p{n}"] for n in range(50, 100)}
    assert during == ({f"{job.name}:unavailable"} if policy == "default" else {f"{job.name}@{version}"})
    assert job.letters() == []


def test_l3_a_run_until_caught_up_gives_up_on_a_redis_that_stays_away(
    kafka: EmbeddedKafka, own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    """L3.6."""
    job = Job(kafka.bootstrap_servers, own_redis.url, tmp_path)
    job.create()
    job.features({"a1": 10.0})
    job.produce([payment(n) for n in range(10)])
    options = RunOptions(until_caught_up=True, patience_s=1.0)
    with pytest.raises(TransientError, match=r"gives up.*Redis"):
        run(job.located, job.settings, options, StopSignal(), started=lambda *known: own_redis.stop())
    assert job.predictions() == {}
    own_redis.start()
    assert run(job.located, job.settings, options, StopSignal())["predictions"] == 10


def wait_for(job: Job, predictions: int) -> None:
    """Until so many predictions are out; the test's own timeout bounds it."""
    while len(job.read("out")) < predictions:
        time.sleep(0.05)


class Wide(Payment):
    """A payment with room for a long note, copied into the prediction."""

    note: str = ""


class WideScore(Wide):
    score: float = 0.0


def test_e3_a_prediction_that_its_topic_refuses_is_a_dead_letter_and_the_others_go_out(job: Job) -> None:
    """E3.5."""
    job.source, job.sink = {"schema": Wide, "max_record_bytes": 4_000_000}, {"schema": WideScore}
    job.create(max_message_bytes=4_000_000)
    job.features({"a1": 10.0})
    job.produce([payment(1), payment(2, note="x" * 2_000_000), payment(3)])
    job.run()
    assert sorted(json.loads(one.record.value or b"")["id"] for one in job.read("out")) == ["p1", "p3"]
    ((_, error, _),) = job.letters()
    assert error == "EncodeError"


class Provenanced(Payment):
    """A prediction that carries its provenance in fields."""

    score: float = 0.0
    prediction_id: str
    model: str
    revision: int
    flags: str


def test_d3_provenance_in_fields_and_headers_passed_on(job: Job) -> None:
    """D3.5."""
    job.sink = {"schema": Provenanced, "provenance": "fields", "headers": ("trace",)}
    job.create()
    version = job.features({"a1": 10.0})
    job.produce([payment(1)])
    job.run()
    (found,) = job.read("out")
    document = json.loads(found.record.value or b"")
    assert document["prediction_id"].endswith("/0/0")
    assert (document["model"], document["revision"], document["flags"]) == ("adder@1", 0, f"{job.name}@{version}")
    assert found.record.headers == [("trace", b"t0")]


def test_d1_a_group_that_never_ran_starts_where_the_topology_says(job: Job) -> None:
    """D1.3."""
    job.source = {"start": "latest"}
    job.create()
    job.features({"a1": 10.0})
    job.produce([payment(1)])
    assert job.run()["consumed"] == 0
    job.produce([payment(2)])
    assert job.run()["predictions"] == 1


def test_e4_too_many_dead_letters_pause_the_worker_before_they_are_all(job: Job) -> None:
    """E4.1."""
    job.create()
    job.features({"a1": 10.0})
    producer = Producer({"bootstrap.servers": job.brokers})
    for _ in range(20_000):
        producer.produce(f"{job.name}.in", b"garbage")
    producer.flush(30)
    job.produce([payment(n) for n in range(100)])  # so that the latest records look as they should
    job.max_in_flight_rows = 2_000  # A storm stops nothing that is under way.
    summary = job.run()
    assert summary["caught_up"] is False
    assert "became dead letters" in summary["paused"]["reason"]
    assert len(job.letters()) < 20_000
