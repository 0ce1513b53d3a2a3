"""``streamml export``: a stretch as Parquet files, on real Kafka and Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from streamml.adapters.kafka.admin import KafkaAdmin, NewTopicPlan
from streamml.engine.identity import HEADER
from streamml.errors import ConfigError
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.export import export as exporting
from streamml.ops.export.export import Exported, Request, export
from streamml.ops.replay.span import Asked
from tests.integration.scoring import Job, payment

pytestmark = pytest.mark.integration
HOUR = 3_600_000
# Younger than what retention removes.
T0 = int(time.time() * 1000) - 70 * HOUR


def silent(kind: str, done: int, total: int) -> None: ...


def exported(job: Job, folder: Path, end: int, tell: Any = silent, **asked: Any) -> Exported:
    return export(job.topology, job.settings, Request(Asked("0", str(end)), **asked), folder, tell)


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows by id of the payment."""
    import pyarrow.parquet as pq

    found = pq.read_table(folder).to_pylist()
    assert len({row["event.id"] for row in found}) == len(found)
    return {row["event.id"]: row for row in found}


def write(job: Job, topic: str, records: list[tuple[str, Any, int]], **options: Any) -> None:
    """Keys, objects, and times in ms."""
    producer = Producer({"bootstrap.servers": job.brokers, "partitioner": "murmur2_random"})
    for key, document, moment in records:
        value = document if isinstance(document, bytes) else json.dumps(document).encode()
        producer.produce(topic, value, key.encode(), timestamp=moment, **options)
    assert producer.flush(30) == 0


def scored(kafka: EmbeddedKafka, redis_server: EmbeddedRedis, folder: Path) -> Job:
    """Sixty payments, an hour apart; the last two of them are no events."""
    made = Job(kafka.bootstrap_servers, redis_server.url, folder, feature_log=True)
    made.create()
    made.features({"a1": 0.5})
    accounts = ("a1", "unknown")
    for part in (0, 1):
        payments = [(f"k{n}", payment(n, accounts[n // 2 % 2]), T0 + n * HOUR) for n in range(part, 58, 2)]
        write(made, f"{made.name}.in", [*payments, ("bad", b"broken", T0 + 58 * HOUR)], partition=part)
    made.run()
    return made


@pytest.fixture(scope="module")
def job(kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """For tests that only read."""
    return scored(kafka, redis_server, tmp_path_factory.mktemp("job"))


def test_events_features_and_predictions_lie_side_by_side(job: Job, tmp_path: Path) -> None:
    done = exported(job, tmp_path / "out", 30)

    assert (done.rows, done.events, done.left_out, done.predictions, done.features) == (58, 58, 2, 58, 58)
    assert (done.notes, done.files, done.again) == ((), 2, False)
    mean, predicted = f"feature.{job.name}.mean", job.predictions()
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 58
    for id, row in rows.items():
        score, made = predicted[id]
        number = int(id.removeprefix("p"))
        assert (row["prediction.score"], row["id"], row["flags"], row["model"]) == (
            score,
            made.id,
            made.flags,
            made.model,
        )
        assert (row["revision"], row["child"], row["feature_flags"]) == (0, None, made.flags)
        assert row["event.amount"] + row[mean] == pytest.approx(score)
        assert row[mean] == (0.5 if number // 2 % 2 == 0 else -1000.0)
        assert (row["offset"], int(row["partition"]), row["topic"]) == (number // 2, number % 2, f"{job.name}.in")
        assert row["time"].replace(tzinfo=UTC).timestamp() * 1000 == pytest.approx(T0 + number * HOUR)
    assert not (tmp_path / "out" / "_work").exists()


def test_the_last_label_within_the_window_counts(job: Job, tmp_path: Path) -> None:
    labels = f"{job.name}.labels"
    KafkaAdmin({"bootstrap.servers": job.brokers}).create([NewTopicPlan(labels, 2, 1)])
    at = [T0 + n * HOUR for n in range(10)]
    write(
        job,
        labels,
        [
            ("p0", {"fraud": True, "loss": 1}, at[0] + HOUR),
            ("p0", {"fraud": False, "loss": 2.5}, at[0] + 2 * HOUR),
            ("p0", {"fraud": True, "loss": 9}, at[0] + 7 * HOUR),
            ("p1", {"fraud": True, "why": {"rule": 'a "b"'}}, at[1]),
            ("p2", {"fraud": True}, at[2] - 1),
            ("p3", {"fraud": None, 'odd"name\\': "ü'"}, at[3] + 6 * HOUR),
            ("p4", b"no JSON", at[4]),
            # What JSON has no word for, or another spelling, or names of fields that no column can have.
            *(("p4", value, at[4]) for value in (b'{"fraud": NaN}', '{"fraud": true}'.encode("utf-16"), b"[" * 10_000)),
            ("p5", b'{"": 1, "with\\u0000": 2, "a/~.b": 3}', at[5]),
        ],
    )

    done = exported(job, tmp_path / "out", 30, labels=labels, label_key="id", within="6h")

    rows = rows_of(tmp_path / "out")
    assert rows["p5"]["label.a/~.b"] == 3
    names = ("label.fraud", "label.loss", "label.why", 'label.odd"name\\')
    assert {id: tuple(rows[id][name] for name in names) for id in ("p0", "p1", "p2", "p3", "p4")} == {
        "p0": (False, 2.5, None, None),
        "p1": (True, None, '{"rule":"a \\"b\\""}', None),
        "p2": (None, None, None, None),
        "p3": (None, None, None, "ü'"),
        "p4": (None, None, None, None),
    }
    assert rows["p2"]["label_time"] is None
    assert (len(rows), done.labels) == (58, 7)


def test_the_highest_revision_counts_or_the_live_one(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    job = scored(kafka, redis_server, tmp_path)
    id = job.predictions()["p0"][1].id
    for revision, value in ((3, 7.0), (2, 5.0), (3, 8.0)):
        mark = f"1;{id};adder@1;{revision};flags".encode()
        write(job, f"{job.name}.out", [("p0", {"id": "p0", "score": value}, T0)], headers=[(HEADER, mark)])
    for place in (f"{id};m;{10**30};", f"{id};m;-1;", f"{id}#{10**30};m;0;", f"{id}#-7;m;0;"):
        forged = [(HEADER, f"1;{place}".encode())]
        write(job, f"{job.name}.out", [("p0", {"id": "p0", "score": 99}, T0)], headers=forged)

    for which, score in (("highest", 7.0), ("live", 1.5)):
        exported(job, tmp_path / which, 30, predictions=which)
        rows = rows_of(tmp_path / which)
        assert (rows["p0"]["prediction.score"], len(rows)) == (score, 58)


_CHILD = """
import os, signal, sys
from pathlib import Path
from streamml.ops.export import export as exporting
exporting._EVENTS = exporting._OTHERS = 16
from tests.integration.scoring import Job
from tests.integration.test_export import exported
def tell(kind, done, total):
    if f"{kind} {done}" == sys.argv[5]:
        os.kill(os.getpid(), signal.SIGKILL)
job = Job(sys.argv[1], sys.argv[2], Path(sys.argv[3]), feature_log=True, name=sys.argv[4])
exported(job, Path(sys.argv[6]), 30, tell)
"""


def test_who_was_killed_goes_on_and_the_result_is_the_same(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F5.5."""
    monkeypatch.setattr(exporting, "_EVENTS", 16)
    monkeypatch.setattr(exporting, "_OTHERS", 16)
    for moment in ("events 2", "rows 2"):
        command = [sys.executable, "-c", _CHILD, job.brokers, job.redis_url, str(job.folder), job.name, moment]
        command.append(str(tmp_path / "out"))
        ended = subprocess.run(command, timeout=60, check=False, env={**os.environ, "PYTHONPATH": os.getcwd()})
        assert ended.returncode == -signal.SIGKILL
    before = sorted((tmp_path / "out").rglob("*.parquet"))
    times = [one.stat().st_mtime_ns for one in before]

    done = exported(job, tmp_path / "out", 30)
    again = exported(job, tmp_path / "out", 30)

    assert (done.rows, done.files, done.again) == (58, 4, False)
    assert (again.rows, again.files, again.again) == (58, 4, True)
    other = exported(job, tmp_path / "whole", 30)
    assert other.rows == 58
    assert [one.stat().st_mtime_ns for one in before if one.exists()] == [
        at for one, at in zip(before, times, strict=True) if one.exists()
    ]
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "whole")


def test_what_cannot_be_exported_is_told_before_anything_is_written(job: Job, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        exported(job, tmp_path / "out", 30, label_key="nobody", within="soon")
    assert len(raised.value.problems) == 3
    with pytest.raises(ConfigError, match="longer than a hundred years"):
        exported(job, tmp_path / "out", 30, labels="any", label_key="id", within="9999999999d")
    with pytest.raises(ConfigError, match="There is no topic"):
        exported(job, tmp_path / "none", 30, labels="nothing-here", label_key="id", within="1h")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(ConfigError, match=r"other files \(mine.txt\)"):
        exported(job, tmp_path / "full", 30)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be used"):
        exported(job, tmp_path / "file", 30)

    exported(job, tmp_path / "done", 30)
    with pytest.raises(ConfigError, match="predictions 'highest' and not 'live'"):
        exported(job, tmp_path / "done", 30, predictions="live")
