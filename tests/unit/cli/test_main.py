"""The command line: exit codes, sentences instead of tracebacks, JSON for programs, and a quick start."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamml.batch.outcome import Failure
from streamml.cli.main import COMMANDS, exit_code_of
from streamml.cli.tables import printable
from streamml.compose.locate import locate_topology
from streamml.engine.dead_letters import compose_letter, read_letter
from streamml.errors import ConfigError
from streamml.ops.dead_letters import find_dead_letter
from streamml.ops.embedded.process import free_port
from streamml.ops.embedded.stack import Part, Stack, State
from streamml.ports.source import RawRecord, TopicPartition
from streamml.settings.settings import Settings

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the machine's, and a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMML_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("STREAMML_BROKERS", raising=False)
    monkeypatch.delenv("STREAMML_REDIS_URL", raising=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: Captured) -> None:
    assert exit_code_of([command, "--help"]) == 0
    assert "Usage:" in capsys.readouterr().out


def test_help_does_not_load_what_it_does_not_need() -> None:
    code = "import sys; from streamml.cli.main import exit_code_of; exit_code_of(['--help']); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    assert not {"numpy", "pydantic", "confluent_kafka", "redis", "onnxruntime", "rich"} & set(loaded)


TOPOLOGY = """
from pydantic import BaseModel
import streamml as sm

class Event(BaseModel):
    id: str
    amount: float

class Doubled(BaseModel):
    id: str
    twice: float

def twice(columns):
    return {"twice": columns["amount"] * 2, **sm.failures(columns["amount"] < 0, "The amount is negative.")}

topology = sm.Topology(
    "doubling",
    source=sm.Source("events", schema=Event, start="earliest"),
    steps=[sm.Transform(twice, inputs=("amount",), outputs={"twice": "f8"})],
    sink=sm.Sink("doubled", schema=Doubled, key="id"),
    dead_letters=sm.DeadLetterQueue("events.dlq"),
)
"""

WITH_A_WRONG_DEFAULT = TOPOLOGY.replace("steps=[", "steps=[sm.FeatureLookup(means), ").replace(
    "def twice", 'means = sm.FeatureSet("means", key="id", columns={"mean": sm.f4(default="a")})\n\ndef twice'
)


@pytest.fixture
def topology(tmp_path: Path) -> str:
    path = tmp_path / "doubling.py"
    path.write_text(TOPOLOGY)
    return str(path)


def test_check_of_a_sound_topology(topology: str, capsys: Captured) -> None:
    assert exit_code_of(["check", topology]) == 0
    assert "No problems" in capsys.readouterr().out
    assert exit_code_of(["check", topology, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []


def test_check_lists_all_problems_and_ends_with_2(topology: str, capsys: Captured) -> None:
    """L1.2."""
    Path(topology).write_text(TOPOLOGY.replace('"events.dlq"', '"events"').replace('key="id"', 'key="nobody"'))
    assert exit_code_of(["check", topology, "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 2


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is not there is waited for only briefly."""
    monkeypatch.setattr("streamml.adapters.kafka.admin._TIMEOUT_S", 1.0)


@pytest.mark.usefixtures("impatient")
def test_what_is_not_of_its_type_is_told_by_every_command_and_is_no_bug(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "typed.py").write_text(
        """
import streamml as sm
cached = sm.FeatureSet(5, key="k", columns={"x": "f4"}, near_cache=True)
topology = sm.Topology(7, source="events", steps=[sm.FeatureLookup(cached)], sink="out", dead_letters=None, latest="x")
"""
    )
    for command in (["check"], ["topics", "create"], ["run"]):
        assert exit_code_of([*command, "typed.py"]) == 2
        told = capsys.readouterr().err
        for part in ("name is 7", "source is 'events'", "sink is 'out'", "latest is 'x'", "columns is {'x': 'f4'}"):
            assert part in told
    assert exit_code_of(["features", "show", "typed.py:cached", "a"]) == 2
    assert "near_cache is True; it has to be NearCache | None" in capsys.readouterr().err


def test_check_connect_tells_what_does_not_answer(topology: str, capsys: Captured) -> None:
    assert exit_code_of(["check", topology, "--connect", "--brokers", f"127.0.0.1:{free_port()}", "--json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert "did not answer" in problem


@pytest.mark.usefixtures("impatient")
def test_a_broker_that_is_not_there_is_named_with_what_to_do(topology: str, capsys: Captured) -> None:
    where = f"127.0.0.1:{free_port()}"
    assert exit_code_of(["topics", "create", topology, "--brokers", where]) == 3
    told = capsys.readouterr().err
    assert f"The broker at {where} did not answer" in told
    for remedy in ("--brokers", "STREAMML_BROKERS", "streamml dev up"):
        assert remedy in told
    assert "by itself" not in told


@pytest.fixture
def started(topology: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `streamml run` on a broker that is not there."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        where = ["--brokers", f"127.0.0.1:{free_port()}"]
        command = [sys.executable, "-m", "streamml", "run", topology, *where, *arguments]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_run_that_was_to_catch_up_and_was_stopped_ends_with_130(
    started: Callable[..., subprocess.Popen[str]],
) -> None:
    runs = [
        (started("--until-caught-up", "--json"), signal.SIGTERM, 130, False),
        (started("--json"), signal.SIGTERM, 0, None),
        (started("--json"), signal.SIGINT, 0, None),
    ]
    for process, how, code, caught_up in runs:
        assert process.stderr is not None
        assert "Attempt 1 to start, the next one in" in process.stderr.readline()
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert json.loads(out)["caught_up"] is caught_up
        assert ("Stopped before it had caught up" in err) == (code == 130)


@pytest.mark.parametrize("place", ["STREAMML_WORKER_ID", "streamml.toml"])
def test_a_worker_id_from_anywhere_names_one_worker(
    place: str, topology: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "streamml.toml":
        Path(place).write_text('worker_id = "w"\n')
    else:
        monkeypatch.setenv(place, "w")
    assert exit_code_of(["run", topology, "--workers", "2"]) == 2
    assert f"worker_id in {place} names one worker" in capsys.readouterr().err


@pytest.mark.logs_errors("out of order")
def test_an_error_of_our_own_is_one_sentence_and_exit_code_3(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """E1.3."""

    def broken(settings: object) -> None:
        raise RuntimeError("out of order\nwith a second line")

    monkeypatch.setattr("streamml.ops.doctor.examine", broken)
    assert exit_code_of(["doctor"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: RuntimeError: out of order. This is a bug in streamml")
    assert exit_code_of(["-v", "doctor"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_the_author_of_a_step_sees_what_it_raised_and_where(topology: str, tmp_path: Path, capsys: Captured) -> None:
    Path(topology).write_text(TOPOLOGY.replace('columns["amount"] * 2', 'columns["amuont"] * 2'))
    sample = tmp_path / "events.jsonl"
    sample.write_text('{"id": "a", "amount": 2}\n')
    assert exit_code_of(["predict", topology, "--sample", str(sample)]) == 0
    line = TOPOLOGY.splitlines().index("def twice(columns):") + 2
    assert f"twice: KeyError: 'amuont' ({topology}, line {line})" in capsys.readouterr().out


def test_a_place_that_is_of_several_dead_letters_names_them(topology: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record = RawRecord(b"k", b"v", [], 0)
    letters = []
    for id in ("T/0/5#0", "T/0/5#1", "U/1/5"):
        where = TopicPartition("t", int(id.split("/")[1]))
        made = compose_letter(Failure("s", "e", "m"), record, where, 5, id, worker="w", now=0.0)
        letters.append(read_letter(RawRecord(made.key, made.value, made.headers, 0)))
    monkeypatch.setattr("streamml.ops.dead_letters.read_dead_letters", lambda *_: letters)
    found, settings = locate_topology(topology).found, Settings()
    with pytest.raises(ConfigError, match="T/0/5#0, T/0/5#1"):
        find_dead_letter(found, settings, "0/5")
    for spelling, id in {"0/5#1": "T/0/5#1", "T/0/5#0": "T/0/5#0", "1/5": "U/1/5"}.items():
        assert find_dead_letter(found, settings, spelling).id == id


def test_what_a_step_raised_is_not_in_its_dead_letter() -> None:
    """E3.3."""
    failure = Failure(
        "step", "StepFailed", "step raised ValueError.", detail="ValueError: hunter2 (topology.py, line 1)"
    )
    letter = compose_letter(failure, RawRecord(b"k", b"v", [], 0), TopicPartition("t", 0), 1, "id", worker="w", now=0.0)
    assert "hunter2" not in repr((letter, failure))


def test_names_in_a_table_are_whole_however_narrow_the_terminal_is() -> None:
    terminal, ours = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "streamml", "config", "show"]
    with subprocess.Popen(command, stdout=ours, stderr=ours, env={**environment, "TERM": "xterm"}) as process:
        os.close(ours)
        read = b""
        # The end of a terminal is an error of reading on Linux.
        with contextlib.suppress(OSError):
            while piece := os.read(terminal, 4096):
                read += piece
        os.close(terminal)
    assert process.returncode == 0
    for name in ("worker.max_in_flight_rows", "redis://127.0.0.1:6379/0"):
        assert name in read.decode()


def test_a_program_gets_lines_with_tabs(capsys: Captured) -> None:
    assert exit_code_of(["config", "show"]) == 0
    assert "worker.drain_ms\t5000\tdefault\tTime that a revoke" in capsys.readouterr().out


def test_what_a_terminal_would_obey_is_written_as_its_escape() -> None:
    assert printable("ö\x1b]52;c;aGk=\x07\x9b2J\u202e\n\t") == "ö\\x1b]52;c;aGk=\\x07\\x9b2J\\u202e\\n\\t"


def test_a_shell_can_take_what_dev_up_prints(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(Part(1234), Part(5678), 9)
    monkeypatch.setattr(Stack, "up", lambda stack, progress, **ports: state)
    assert exit_code_of(["dev", "up"]) == 0
    told = capsys.readouterr()
    script = f"{told.out}echo $STREAMML_BROKERS $STREAMML_REDIS_URL"
    taken = subprocess.run(["/bin/sh", "-euc", script], capture_output=True, text=True, check=True)
    assert taken.stdout == "127.0.0.1:1234 redis://127.0.0.1:5678/0\n"
    assert "Kafka and Redis are up" in told.err


def test_dev_in_another_folder_says_where_it_looked_and_leaves_nothing(tmp_path: Path, capsys: Captured) -> None:
    looked = str(tmp_path / ".streamml" / "dev")
    for command in ("down", "status"):
        assert exit_code_of(["dev", command]) == 0
        told = capsys.readouterr().out
        assert looked in told
        assert "--folder" in told
        assert exit_code_of(["dev", command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["folder"] == looked
    assert not Path(looked).exists()
    (tmp_path / "file").touch()
    assert exit_code_of(["dev", "up", "--folder", "file"]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_predict_needs_no_broker_and_no_redis(topology: str, tmp_path: Path, capsys: Captured) -> None:
    sample = tmp_path / "events.jsonl"
    sample.write_text('{"id": "a", "amount": 2}\n\nnonsense\n{"id": "b", "amount": -1}\n')
    assert exit_code_of(["predict", topology, "--sample", str(sample), "--json"]) == 0
    first, second, third = json.loads(capsys.readouterr().out)
    assert [one["event"] for one in (first, second, third)] == [1, 3, 4]
    assert first["prediction"] == {"id": "a", "twice": 4.0}
    assert second["dead_letter"]["error"] == "DecodeError"
    assert third["dead_letter"]["message"] == "The amount is negative."
    assert exit_code_of(["predict", topology, "--sample", str(sample)]) == 0
    assert "dead letter" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "nothing"], "There is no topology 'nothing'"),
        (["check", "broken.py"], "broken.py, line 1: ZeroDivisionError"),
        (["check", "imports.py"], "No module named 'not_there'"),
        (["check", "two.py"], "exactly one Topology"),
        (["check", "nothing"], "There is shop, topologies/fraud."),
        (["check", "topologies/nothing"], "no folder topologies/nothing with a topology.py"),
        (["check", "two.py:three"], "two.py; it has other, topology."),
        (["check", "leaves.py"], "leaves.py, line 2: it ends the process while it is read"),
        (["run", "leaves.py"], "it ends the process while it is read"),
        (["check", "syntax.py"], "syntax.py, line 2: SyntaxError: '(' was never closed."),
        (["predict", "default.py", "--sample", "one.py"], "a default that is no value of f4: 'a'"),
        (["features", "load", "means.csv", "--set", "default.py:means"], "means.csv cannot be read: In column 'mean'"),
        (["check", "gone.py"], "There is no file gone.py"),
        (["predict", "one.py", "--sample", "gone.jsonl"], "gone.jsonl cannot be read"),
        (["run", "one.py", "--config", "gone.toml"], "gone.toml cannot be read"),
        (["run", "one.py", "--workers", "2", "--worker-id", "x"], "--worker-id names one worker"),
        (["run", "one.py", "--metrics-port", "99999999"], "--metrics-port sets metrics.port wrongly"),
        (["run", "one.py", "--metrics-port", "65535", "--workers", "2"], "from port 65535 to 65536"),
        (["demo", "--faults", "earthquake"], "earthquake is no fault"),
        (["demo"], "run `streamml demo` in a checkout"),
        (["bench"], "run `streamml bench` in a checkout"),
        (["features", "load", "x.parquet", "--set", "one.py:topology"], "is a Topology and not a FeatureSet"),
        (["frobnicate"], "No such command"),
    ],
)
def test_a_users_mistake_is_a_sentence_and_exit_code_2(
    arguments: list[str], words: str, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "one.py").write_text(TOPOLOGY)
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "imports.py").write_text("import not_there")
    (tmp_path / "two.py").write_text(TOPOLOGY + "\nother = topology\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit()\n")
    (tmp_path / "syntax.py").write_text("one = 1\ntwo = (\n")
    (tmp_path / "default.py").write_text(WITH_A_WRONG_DEFAULT)
    (tmp_path / "means.csv").write_text("id,event_time,mean\na,2026-01-01,much\n")
    for folder in ("shop", "topologies/fraud"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "topology.py").touch()
    assert exit_code_of(arguments) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


def test_settings_show_where_they_come_from_and_hide_secrets(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMML_KAFKA_SASL_PASSWORD", "hunter2")
    assert exit_code_of(["config", "show", "--brokers", "b:1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["brokers"] == {"value": "b:1", "from": "flag"}
    assert shown["kafka.sasl.password"] == {"value": "****", "from": "STREAMML_KAFKA_SASL_PASSWORD"}
    assert exit_code_of(["config", "show"]) == 0
    assert "hunter2" not in capsys.readouterr().out


@pytest.mark.usefixtures("impatient")
def test_doctor_names_what_does_not_answer_with_a_remedy(capsys: Captured) -> None:
    places = ["--brokers", f"127.0.0.1:{free_port()}", "--redis-url", f"redis://127.0.0.1:{free_port()}/0"]
    assert exit_code_of(["doctor", *places, "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["Python"]["ok"]
    assert not found["Broker"]["ok"]
    for name in ("Broker", "Redis"):
        assert found[name]["detail"].count("streamml dev up") == 1


def test_redis_that_is_not_there_is_a_sentence_and_exit_code_3(capsys: Captured) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    assert exit_code_of(["features", "versions", "route", "--redis-url", url]) == 3
    told = capsys.readouterr().err
    assert "cannot be reached" in told
    assert "--redis-url" in told
