"""Dead letters that are scored again, on real Kafka and Redis (E5)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

import streamml as sm
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.adapters.kafka.redrive_sink import RedriveSink
from streamml.adapters.kafka.tail import read_topic
from streamml.cli.main import exit_code_of
from streamml.compose.parts import gather
from streamml.engine.dead_letters import DeadLetter
from streamml.engine.identity import read_header
from streamml.errors import ConfigError
from streamml.ops import redrive as ops
from streamml.ops.dead_letters import read_dead_letters
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.redrive import Chosen, Redriven
from streamml.ops.run import StopSignal
from streamml.settings.settings import Settings
from tests.integration.scoring import Job, Payment, Score, payment

pytestmark = pytest.mark.integration
EVERY = Chosen()


@pytest.fixture
def job(kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path) -> Job:
    """Ten payments, four of an account that no feature is known of: these are dead letters, and so is one that is no JSON."""
    made = Job(kafka.bootstrap_servers, redis_server.url, tmp_path, policies={"if_missing": "dead_letter"})
    made.create()
    made.features({"a1": 10.0})
    accounts = ["a1", "a1", "a2", "a1", "a2", "a1", "a3", "a1", "a2", "a1"]
    made.produce([payment(number, account) for number, account in enumerate(accounts)])
    made.produce([b"nonsense"])
    assert made.run()["dead_letters"] == 5
    return made


def settings_of(job: Job, guarantee: str = "at_least_once") -> Settings:
    worker = job.settings.worker.model_copy(update={"processing_guarantee": guarantee})
    return job.settings.model_copy(update={"worker": worker})


def redrive(job: Job, chosen: Chosen = EVERY, guarantee: str = "at_least_once", **options: Any) -> Redriven:
    settings, topology = settings_of(job, guarantee), job.topology
    places = ops.find_places(topology, settings, chosen)
    with gather(topology, job.located.repository, settings) as parts:
        return ops.redrive(topology, parts, settings, places, StopSignal(), **options)


def letters(job: Job) -> dict[str, DeadLetter]:
    found = list(read_dead_letters(job.topology, job.settings))
    assert len(found) == len({one.id for one in found})
    return {_name(one): one for one in found}


def _name(letter: DeadLetter) -> str:
    return str(json.loads(letter.value or b"")["id"]) if letter.error != "DecodeError" else "nonsense"


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_e5_letters_are_scored_when_their_cause_is_mended_and_those_that_are_not_are_one_letter_each(
    job: Job, guarantee: str
) -> None:
    """E5.4."""
    before = letters(job)
    assert set(before) == {"p2", "p4", "p6", "p8", "nonsense"}
    job.features({"a1": 10.0, "a2": 20.0})
    offsets = KafkaOffsets(job.settings.client())
    places = offsets.partitions([f"{job.name}.in"])
    bounds, committed = offsets.bounds(places), offsets.committed(job.name, places)
    assert redrive(job, guarantee=guarantee) == Redriven(gone=3, failed=2)
    scores = job.predictions()
    assert {name: score for name, (score, _) in scores.items() if name in before} == {
        "p2": 23.0,
        "p4": 25.0,
        "p8": 29.0,
    }
    assert {scores[name][1].id for name in ("p2", "p4", "p8")} == {before[name].id for name in ("p2", "p4", "p8")}
    assert {mark.revision for _, mark in scores.values()} == {0}
    left = letters(job)
    assert {name: one.attempts for name, one in left.items()} == {"p6": 2, "nonsense": 2}
    for name, one in left.items():
        was = before[name]
        same = (one.id, one.key, one.value, one.headers, one.timestamp, one.topic, one.partition, one.offset)
        assert same == (was.id, was.key, was.value, was.headers, was.timestamp, was.topic, was.partition, was.offset)
    assert offsets.bounds(places) == bounds
    assert offsets.committed(job.name, places) == committed
    assert redrive(job, guarantee=guarantee) == Redriven(gone=0, failed=2)
    assert {one.attempts for one in letters(job).values()} == {3}


def test_e5_only_those_that_are_chosen_are_redriven_in_bounded_rounds(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = letters(job)
    job.features({"a1": 10.0, "a2": 20.0, "a3": 30.0})
    now = max(one.time_ms for one in before.values())
    assert redrive(job, Chosen(since_ms=now + 1)) == Redriven()
    assert redrive(job, Chosen(reason="DecodeError", step="decode", until_ms=now + 1)) == Redriven(failed=1)
    assert redrive(job, Chosen(ids=frozenset([before["p4"].id]))) == Redriven(gone=1)
    with pytest.raises(ConfigError, match="There is no dead letter"):
        redrive(job, Chosen(ids=frozenset([before["p4"].id])))
    monkeypatch.setattr(ops, "_ROUND_BYTES", 150)
    told: list[Redriven] = []
    assert redrive(job, Chosen(reason="FeatureMissing"), told=told.append) == Redriven(gone=3)
    assert [one.gone for one in told] == [1, 2, 3]
    assert set(letters(job)) == {"nonsense"}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_e5_interrupted_before_letters_are_taken_out_it_is_done_again_under_the_same_ids(
    job: Job, guarantee: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E5.4, E5.5."""
    job.features({"a1": 10.0, "a2": 20.0, "a3": 30.0})
    before = letters(job)

    def killed(sink: RedriveSink, now_ms: int) -> int:
        sink.close(10.0)
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(RedriveSink, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            redrive(job, guarantee=guarantee)
    assert redrive(job, guarantee=guarantee) == Redriven(gone=4, failed=1)
    marks = [dict(one.record.headers)["streamml"] or b"" for one in job.read("out")]
    times = Counter(read_header(mark).id for mark in marks)
    assert {times[before[name].id] for name in ("p2", "p4", "p6", "p8")} == {1 if guarantee == "exactly_once" else 2}
    assert set(letters(job)) == {"nonsense"}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_e5_what_somebody_else_has_redriven_meanwhile_is_not_scored_again(job: Job, guarantee: str) -> None:
    """E5.4."""
    job.features({"a1": 10.0, "a2": 20.0, "a3": 30.0})
    settings, topology = settings_of(job, guarantee), job.topology
    found_before = ops.find_places(topology, settings, EVERY)
    assert redrive(job, guarantee=guarantee) == Redriven(gone=4, failed=1)
    with gather(topology, job.located.repository, settings) as parts:
        assert ops.redrive(topology, parts, settings, found_before, StopSignal()) == Redriven()
    assert len(job.read("out")) == 10
    assert {name: one.attempts for name, one in letters(job).items()} == {"nonsense": 2}


def test_e5_a_copy_under_another_key_is_never_taken_out_as_if_it_had_been_scored(job: Job) -> None:
    """E5.4."""
    (first, *_) = read_topic(job.settings.client(), f"{job.name}.dlq")
    id = (first.record.key or b"").decode()
    copies = ["copied", f"{id}#", f"{id}0", f"{id[:-2]}/7"]
    producer = Producer({"bootstrap.servers": job.brokers})
    for key in copies:
        headers: Any = first.record.headers
        producer.produce(f"{job.name}.dlq", first.record.value, key, headers=headers)
    assert producer.flush(30) == 0
    job.features({"a1": 10.0, "a2": 20.0, "a3": 30.0})
    assert redrive(job) == Redriven(gone=4, failed=1)
    left = {one.id for one in read_dead_letters(job.topology, job.settings)}
    assert left.issuperset(copies)
    assert len(left) == len(copies) + 1


def test_e5_the_command_says_what_became_of_them(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """E5.4."""
    file = tmp_path / "job.py"
    file.write_text(
        f"""
from pathlib import Path
from tests.integration.scoring import Job
topology = Job("", "", Path("."), name="{job.name}").topology
"""
    )
    servers = ["--brokers", job.brokers, "--redis-url", job.redis_url]
    assert exit_code_of(["dlq", "redrive", str(file), *servers]) == 2
    assert "add --yes" in capsys.readouterr().err
    command = [sys.executable, "-m", "streamml", "dlq", "redrive", str(file), *servers]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    # What was missing has a default there.
    done = subprocess.run(
        [*command, "--yes", "--json", "--since", "2020-01-01T00:00:00Z"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"chosen": 5, "gone": 4, "failed": 1, "left": 0}
    assert set(letters(job)) == {"nonsense"}


class Exploding(Job):
    """Every payment is ``count`` rows; the model's input of those whose number is in ``bad`` is refused."""

    bad: tuple[int, ...] = ()

    @property
    def topology(self) -> sm.Topology:
        def parts(columns: dict[str, Any]) -> dict[str, Any]:
            parent = np.repeat(np.arange(len(columns["count"])), columns["count"])
            first = np.cumsum(columns["count"]) - columns["count"]
            return {sm.PARENT: parent, "part": (np.arange(len(parent)) - first[parent]).astype("i8")}

        def score(columns: dict[str, Any]) -> dict[str, Any]:
            bad = np.isin(columns["part"], self.bad)
            return {"score": columns["part"].astype("f8"), **sm.failures(bad, "A bad part.")}

        return sm.Topology(
            self.name,
            source=sm.Source(f"{self.name}.in", schema=Payment, start="earliest"),
            steps=[
                sm.Explode(parts, inputs=("count",), outputs={"part": "i8"}),
                sm.Transform(score, inputs=("part",), outputs={"score": "f8"}),
            ],
            sink=sm.Sink(f"{self.name}.out", schema=Score, key="id"),
            dead_letters=sm.DeadLetterQueue(f"{self.name}.dlq", max_ratio=1.0),
        )


def test_e5_a_child_is_redriven_without_the_siblings_that_went_out_before(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """E5.5."""
    job = Exploding(kafka.bootstrap_servers, redis_server.url, tmp_path)
    job.create()
    job.bad = (1, 3)
    job.produce([payment(number, count=4) for number in range(4)])
    job.run()
    job.bad = (3,)
    assert redrive(job) == Redriven(gone=4, failed=4)
    ids = [
        read_header(dict(one.record.headers)["streamml"] or b"").id
        for one in read_topic(job.settings.client(), f"{job.name}.out")
    ]
    assert len(ids) == len(set(ids)) == 12
    assert {one.rpartition("#")[2] for one in ids} == {"0", "1", "2"}
    assert {one.id.rpartition("#")[2] for one in read_dead_letters(job.topology, job.settings)} == {"3"}
