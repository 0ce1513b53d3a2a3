"""The commands on a real broker and a real Redis, as their users type them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from confluent_kafka import Producer

from streamml.adapters.kafka.tail import read_topic
from streamml.cli.main import exit_code_of
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.process import free_port
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.telemetry.catalogue import CATALOGUE
from tests.integration.scoring import model
from tests.swallowed import assert_nothing_swallowed

pytestmark = pytest.mark.integration

TOPOLOGY = """
from pydantic import BaseModel
import numpy as np
import streamml as sm

class Payment(BaseModel):
    id: str
    account: str
    amount: float

class Score(BaseModel):
    id: str
    score: float

accounts = sm.FeatureSet("NAME", key="account", columns={"mean": sm.f4(default=0.0)}, max_default_ratio=1.0)

def to_matrix(columns):
    return {"x": np.stack([columns["amount"], columns["NAME.mean"]], axis=1).astype("f4")}

topology = sm.Topology(
    "NAME",
    source=sm.Source("NAME.in", schema=Payment, start="earliest"),
    steps=[
        sm.FeatureLookup(accounts),
        sm.Transform(to_matrix, inputs=("amount", "NAME.mean"), outputs={"x": "f4[2]"}),
        sm.Onnx("adder", outputs={"score": "score"}),
    ],
    sink=sm.Sink("NAME.out", schema=Score, key="id"),
    dead_letters=sm.DeadLetterQueue("NAME.dlq", max_ratio=0.9),
)
"""


class Shell:
    """A user's shell in a folder with a topology."""

    def __init__(self, folder: Path, brokers: str, redis_url: str) -> None:
        self.folder, self.brokers = folder, brokers
        self.name = f"cli-{uuid.uuid4().hex[:8]}"
        (folder / "payments.py").write_text(TOPOLOGY.replace("NAME", self.name))
        model(folder)
        own = {"STREAMML_BROKERS": brokers, "STREAMML_REDIS_URL": redis_url, "STREAMML_STATE_DIR": str(folder)}
        self.environment = {**os.environ, **own}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "streamml", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def type(self, *arguments: str, code: int = 0) -> Any:
        """Run a command to its end; its JSON, if it printed any."""
        ended, out, err = self.ended(*arguments)
        assert ended == code, err
        return json.loads(out) if out.startswith(("{", "[")) else out

    def refused(self, *arguments: str) -> str:
        """What a command says on stderr that is refused as wrong use."""
        ended, out, err = self.ended(*arguments)
        assert (ended, out) == (2, ""), err
        return err

    def ended(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command in this process, which has loaded what it needs; its exit code, and what it said to whom."""
        out, err = io.StringIO(), io.StringIO()
        handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
        with (
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, self.environment, clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                code = exit_code_of(list(arguments))
            finally:
                for one, handler in handlers.items():
                    signal.signal(one, handler)
        assert_nothing_swallowed(err.getvalue())
        return code, out.getvalue(), err.getvalue()

    def produce(self, count: int, first: int = 0) -> None:
        producer = Producer({"bootstrap.servers": self.brokers})
        for number in range(first, first + count):
            value = {"id": f"p{number}", "account": f"a{number % 10}", "amount": float(number)}
            producer.produce(f"{self.name}.in", json.dumps(value), str(number))
        assert producer.flush(30) == 0

    def scores(self, *, once: bool = True) -> dict[str, float]:
        read = read_topic({"bootstrap.servers": self.brokers}, f"{self.name}.out")
        found = [json.loads(one.record.value or b"") for one in read]
        assert not once or len({one["id"] for one in found}) == len(found)
        return {one["id"]: one["score"] for one in found}


@pytest.fixture
def shell(kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path) -> Shell:
    return Shell(tmp_path, kafka.bootstrap_servers, redis_server.url)


def load_features(shell: Shell) -> str:
    accounts = [f"a{number}" for number in range(10)]
    table = {"account": accounts, "event_time": np.full(10, 0, "M8[us]"), "mean": np.full(10, 0.5, "f4")}
    pq.write_table(pa.table(table), shell.folder / "accounts.parquet")
    report = shell.type("features", "load", "accounts.parquet", "--set", "payments.py:accounts", "--json")
    assert (report["rows"], report["entities"]) == (10, 10)
    return str(report["version"])


def test_the_way_of_a_new_topology_by_the_commands(shell: Shell) -> None:
    created = shell.type("topics", "create", "payments.py", "--partitions", "3", "--json")
    assert created["created"] == [f"{shell.name}.{part}" for part in ("in", "out", "dlq", "control", "replays")]
    assert len(shell.type("topics", "create", "payments.py", "--json")["existing"]) == 5
    version = load_features(shell)
    assert shell.type("features", "versions", shell.name, "--json")["current"] == version
    assert shell.type("features", "show", shell.name, "a3", "--json")["columns"] == {"mean": 0.5}
    assert shell.type("check", "payments.py", "--connect", "--json")["problems"] == []

    shell.produce(1000)
    Producer({"bootstrap.servers": shell.brokers}).flush(1)
    producer = Producer({"bootstrap.servers": shell.brokers})
    producer.produce(f"{shell.name}.in", b"garbage", b"k")
    producer.flush(10)
    summary = shell.type("run", "payments.py", "--until-caught-up", "--json")
    assert (summary["consumed"], summary["predictions"], summary["dead_letters"]) == (1001, 1000, 1)
    assert summary["latency_ms"]["p50"] > 0
    assert summary["mean_batch_rows"] >= 1
    assert shell.scores() == {f"p{number}": number + 0.5 for number in range(1000)}

    listed = shell.type("dlq", "list", "payments.py", "--json")
    assert [(one["step"], one["error"], one["count"]) for one in listed["reasons"]] == [("decode", "DecodeError", 1)]
    shown = shell.type("dlq", "show", "payments.py", listed["dead_letters"][0]["id"], "--json")
    assert (shown["value"], shown["key"]) == ("garbage", "k")
    assert "garbage" not in json.dumps(listed)

    second = load_features(shell)
    assert shell.type("features", "rollback", shell.name, "--json")["current"] == version != second


def test_topics_that_were_there_say_how_many_partitions_they_keep(shell: Shell) -> None:
    shell.type("topics", "create", "payments.py", "--partitions", "2")
    told = shell.type("topics", "create", "payments.py", "--partitions", "8")
    assert f"{shell.name}.in was there already and keeps its 2 partitions, not the 8 asked for." in told
    assert f"{shell.name}.dlq was there already and keeps its 1 partition.\n" in told
    assert "asked for" not in shell.type("topics", "create", "payments.py")


def test_a_set_that_is_not_there_and_a_key_of_another_length_are_wrong_use(shell: Shell) -> None:
    load_features(shell)
    misspelled = f"{shell.name}x"
    for command in (
        ["versions", misspelled],
        ["show", misspelled, "a1"],
        ["rollback", misspelled],
        ["prune", misspelled],
    ):
        told = shell.refused("features", *command)
        assert f"{misspelled!r} was never loaded" in told
        assert f" {shell.name}" in told.partition("loaded sets are:")[2]
    told = shell.refused("features", "show", shell.name, "a1", "a2")
    assert "have 1 part, and 2 were given" in told
    assert "no value for this entity" in shell.type("features", "show", shell.name, "nobody")


def test_features_prune_keeps_what_it_promises(shell: Shell, redis_server: EmbeddedRedis) -> None:
    loaded = [load_features(shell) for _ in range(4)]
    assert "nothing to delete" in shell.type("features", "prune", shell.name, "--keep", "1")
    catalogue = f"streamml:{{{shell.name}}}:versions"
    with redis.Redis.from_url(redis_server.url) as client:
        for version, packed in client.hgetall(catalogue).items():
            entry = json.loads(packed)
            late = {name: entry[name] - 7200 for name in ("loaded_at", "updated_at", "current_until") if entry[name]}
            client.hset(catalogue, version, json.dumps({**entry, **late}))
        assert shell.type("features", "prune", shell.name, "--keep", "1", "--json")["pruned"] == loaded[:2]
        assert len(client.keys(f"streamml:{shell.name}:{loaded[0]}:*")) == 0
    assert len(shell.type("features", "versions", shell.name, "--json")["versions"]) == 2
    shown = shell.type("features", "versions", shell.name)
    assert re.search(
        rf"^→\t{loaded[3]}\tcomplete\t10\t\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\dZ\taccounts.parquet$", shown, re.MULTILINE
    )


def test_what_is_wrong_with_the_rows_of_a_file_comes_with_its_name_and_nothing_else(shell: Shell) -> None:
    (shell.folder / "accounts.csv").write_text("account,event_time,mean\na,2026-01-01,1\n,2026-01-01,nan\n")
    told = shell.refused("features", "load", "accounts.csv", "--set", "payments.py:accounts").splitlines()
    assert told == [
        "2 problems:",
        "  - accounts.csv: Row 2: key column 'account' is empty.",
        "  - accounts.csv: Row 2: column 'mean' is null.",
    ]


def test_dead_letters_can_be_listed_named_and_looked_at_whatever_was_written_into_their_topic(shell: Shell) -> None:
    """E5.3."""
    shell.type("topics", "create", "payments.py", "--partitions", "1")
    load_features(shell)
    shell.produce(1)
    producer = Producer({"bootstrap.servers": shell.brokers})
    producer.produce(f"{shell.name}.in", b"\x1b]52;c;aGk=\x07\nsecond line", b"k\x1b[2J")
    forged = {
        "version": "1",
        "topic": "t",
        "partition": "0",
        "offset": "0",
        "step": "\x1b[2J",
        "error": "e",
        "message": "m",
    }
    whole = {**forged, "model": "", "attempts": "1", "worker": "w", "time_ms": "9" * 30}
    for headers in (forged, {**whole, "offset": "second"}, whole):
        own: list[tuple[str, str | bytes | None]] = [(f"streamml.dlq.{name}", value) for name, value in headers.items()]
        producer.produce(f"{shell.name}.dlq", b"x", f"forged/{len(headers)}/{headers['offset']}", headers=own)
    producer.flush(10)
    assert shell.type("run", "payments.py", "--until-caught-up", "--json")["caught_up"] is True

    listed = shell.type("dlq", "list", "payments.py")
    assert "\x1b" not in listed
    _, _, *letters = [line.split("\t") for line in listed.partition("By reason")[0].splitlines()]
    assert [one[1:3] for one in letters] == [["0", "0"], ["0", "1"]]
    assert shell.type("dlq", "list", "payments.py", "--json")["count"] == 2
    by_id = shell.type("dlq", "show", "payments.py", letters[1][0])
    assert by_id == shell.type("dlq", "show", "payments.py", "0/1")
    assert "\\x1b]52;c;aGk=\\x07\\nsecond line" in by_id
    assert not [one for one in by_id if not one.isprintable() and one != "\n"]
    assert "There is no dead letter '0/7'" in shell.refused("dlq", "show", "payments.py", "0/7")


def test_e5_dead_letters_are_exported_and_shown_without_secrets_and_purged_for_good(shell: Shell) -> None:
    """E5.1, E5.2."""
    written = (shell.folder / "payments.py").read_text()
    (shell.folder / "payments.py").write_text(
        written.replace('start="earliest"', 'start="earliest", secret=("account",)')
    )
    shell.type("topics", "create", "payments.py", "--partitions", "1")
    load_features(shell)
    shell.produce(3)
    producer = Producer({"bootstrap.servers": shell.brokers})
    for value in (b'{"id": "bad", "account": "a7-hunter2"}', b"hunter2 is no JSON"):
        producer.produce(f"{shell.name}.in", value, b"hunter2", headers=[("card", b"hunter2")])
    assert producer.flush(30) == 0
    assert shell.type("run", "payments.py", "--until-caught-up", "--json")["dead_letters"] == 2

    (reason,) = shell.type("dlq", "list", "payments.py", "--json")["reasons"]
    assert (reason["count"], reason["first"] <= reason["last"]) == (2, True)
    shell.type("dlq", "export", "payments.py", "letters.jsonl")
    exported = (shell.folder / "letters.jsonl").read_text()
    letters = [json.loads(line) for line in exported.splitlines()]
    assert json.loads(letters[0]["value"]) == {"id": "bad", "account": "•••"}
    assert letters[1]["value"] == "•••"
    assert "hunter2" not in exported + shell.type("dlq", "show", "payments.py", "0/3")

    assert "There is no dead letter '0/9'" in shell.refused("dlq", "purge", "payments.py", "0/9", "--yes")
    assert shell.type("dlq", "purge", "payments.py", "0/3", "--yes", "--json") == {"purged": 1}
    assert [one["offset"] for one in shell.type("dlq", "list", "payments.py", "--json")["dead_letters"]] == [4]
    assert shell.type("dlq", "purge", "payments.py", "--error", "DecodeError", "--yes", "--json") == {"purged": 1}
    assert "no dead letters" in shell.type("dlq", "list", "payments.py")


def test_the_lines_of_the_readme_publish_an_event_and_read_predictions(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.type("topics", "create", "payments.py")
    load_features(shell)
    monkeypatch.setenv("STREAMML_BROKERS", shell.brokers)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    publish, read = re.findall(r"```python\n(import json.*?)(reader = .*?)```", readme, re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec(publish.replace('"payments"', f'"{shell.name}.in"'), names)
    assert shell.type("run", "payments.py", "--until-caught-up", "--json")["predictions"] == 1
    own = {'"scores"': f'"{shell.name}.out"', '"reader"': f'"{shell.name}.reader"', "poll(10)": "poll(5)"}
    for name, ours in own.items():
        read = read.replace(name, ours)
    exec(read, names)
    (line,) = capsys.readouterr().out.splitlines()
    assert '"id":"p1"' in line
    assert "b'1;" in line


def test_workers_share_the_topic_and_their_summaries_add_up(shell: Shell) -> None:
    shell.type("topics", "create", "payments.py")
    load_features(shell)
    shell.produce(3000)
    summary = shell.type("run", "payments.py", "--workers", "2", "--until-caught-up", "--json")
    assert (summary["workers"], summary["predictions"], summary["caught_up"]) == (2, 3000, True)
    assert len(shell.scores()) == 3000


def test_l3_sigterm_finishes_and_a_crash_is_restarted_and_metrics_are_served(shell: Shell) -> None:
    """L3.1, L3.3."""
    shell.type("topics", "create", "payments.py")
    load_features(shell)
    port = free_port()
    shell.environment["STREAMML_METRICS_PORT"] = str(port)
    process = shell.start("run", "payments.py", "--workers", "2", "--json")
    try:
        shell.produce(500)
        wait_for(shell, 500)
        victim = child_of(process.pid)
        os.kill(victim, signal.SIGKILL)
        shell.produce(500, first=500)
        while len(shell.scores(once=False)) < 1000:
            time.sleep(0.02)
        served = page(f"http://127.0.0.1:{port + 1}/metrics")
        for metric in CATALOGUE:
            assert f"# TYPE {metric.name}" in served, metric.name
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert_nothing_swallowed(err)
    assert "starting it again" in err
    # Worker 0 may have been killed before it could say so.
    assert f"Worker 1: Running {shell.name}." in err
    assert f"Worker 1: Metrics: http://127.0.0.1:{port + 1}/metrics" in err
    assert json.loads(out)["workers"] >= 1
    assert shell.scores(once=False) == {f"p{number}": number + 0.5 for number in range(1000)}


def test_l2_a_step_that_does_not_come_back_ends_the_worker_with_the_stacks_of_its_threads(shell: Shell) -> None:
    """L2.1."""
    shell.type("topics", "create", "payments.py")
    load_features(shell)
    written = (shell.folder / "payments.py").read_text()
    hanging = "import threading\n\ndef to_matrix(columns):\n    threading.Event().wait()"
    (shell.folder / "stuck.py").write_text(written.replace("def to_matrix(columns):", hanging))
    shell.environment |= {"STREAMML_WORKER_STUCK_AFTER_MS": "5100", "STREAMML_WORKER_DRAIN_MS": "100"}
    shell.produce(10)
    process = shell.start("run", "stuck.py")
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 3, err
    assert "stuck" in err
    assert "in to_matrix" in err
    assert err.count("Thread 0x") > 2
    assert shell.scores() == {}


def test_l3_a_second_signal_ends_a_worker_at_once(shell: Shell) -> None:
    """L3.2."""
    shell.type("topics", "create", "payments.py")
    load_features(shell)
    written = (shell.folder / "payments.py").read_text()
    hanging = 'import pathlib, threading\n\ndef to_matrix(columns):\n    pathlib.Path("hangs").touch()\n    threading.Event().wait()'
    (shell.folder / "stuck.py").write_text(written.replace("def to_matrix(columns):", hanging))
    shell.produce(10)
    process = shell.start("run", "stuck.py")
    try:
        while not (shell.folder / "hangs").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        # The first one waits for the step: it has five seconds.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=3) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def page(url: str) -> str:
    """What is served there, as soon as anything is; the test's own timeout bounds it."""
    while True:
        try:
            return str(urllib.request.urlopen(url).read().decode())
        except urllib.error.URLError:
            time.sleep(0.02)


def wait_for(shell: Shell, predictions: int) -> None:
    """Until so many predictions are out; the test's own timeout bounds it."""
    while sum(1 for _ in read_topic({"bootstrap.servers": shell.brokers}, f"{shell.name}.out")) < predictions:
        time.sleep(0.02)


def child_of(pid: int) -> int:
    """The first worker process of a supervisor."""
    import psutil

    children = [child for child in psutil.Process(pid).children() if "run" in child.cmdline()]
    return int(children[0].pid)


def test_metrics_have_the_values_that_they_should(shell: Shell) -> None:
    """F3.1."""
    shell.type("topics", "create", "payments.py")
    load_features(shell)
    port = free_port()
    process = shell.start("run", "payments.py", "--metrics-port", str(port))
    try:
        shell.produce(200)
        wait_for(shell, 200)
        metrics = scraped(port)
        # What settled is counted at once, and measured with the next tally.
        while {metrics.get(f"streamml_{name}") for name in ("predictions_total", "latency_seconds_count")} != {200}:
            time.sleep(0.02)
            metrics = scraped(port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert metrics["streamml_consumed_records_total"] == 200
    assert metrics["streamml_dead_letters_total"] == 0
    assert metrics["streamml_latency_seconds_count"] == 200
    assert 0 < metrics["streamml_latency_seconds_sum"] < 200 * 60
    assert metrics["streamml_latency_seconds_bucket"] == 200
    assert metrics["streamml_feature_rows_total"] == 200
    assert metrics["streamml_in_flight_records"] == 0


def scraped(port: int) -> dict[str, float]:
    """Samples by name; of those with labels the sum, of buckets the last."""
    from prometheus_client.parser import text_string_to_metric_families

    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    found: dict[str, float] = {"streamml_dead_letters_total": 0}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            whole = sample.name.endswith("_bucket")
            found[sample.name] = sample.value if whole else found.get(sample.name, 0) + sample.value
    return found
