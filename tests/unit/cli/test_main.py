"""The command line: exit codes, sentences instead of tracebacks, JSON for programs, and a quick start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from streamml.cli.main import COMMANDS, exit_code_of
from streamml.ops.embedded.process import free_port

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
    Path(topology).write_text(TOPOLOGY.replace('"events.dlq"', '"events"').replace('key="id"', 'key="nobody"'))
    assert exit_code_of(["check", topology, "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 2


def test_check_connect_tells_what_does_not_answer(topology: str, capsys: Captured) -> None:
    assert exit_code_of(["check", topology, "--connect", "--brokers", f"127.0.0.1:{free_port()}", "--json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert "did not answer" in problem


def test_predict_needs_no_broker_and_no_redis(topology: str, tmp_path: Path, capsys: Captured) -> None:
    sample = tmp_path / "events.jsonl"
    sample.write_text('{"id": "a", "amount": 2}\n\nnonsense\n{"id": "b", "amount": -1}\n')
    assert exit_code_of(["predict", topology, "--sample", str(sample), "--json"]) == 0
    first, second, third = json.loads(capsys.readouterr().out)
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
        (["check", "two.py:three"], "is nothing and not a Topology"),
        (["check", "gone.py"], "There is no file gone.py"),
        (["predict", "one.py", "--sample", "gone.jsonl"], "gone.jsonl cannot be read"),
        (["run", "one.py", "--config", "gone.toml"], "gone.toml cannot be read"),
        (["run", "one.py", "--workers", "2", "--worker-id", "x"], "--worker-id names one worker"),
        (["run", "one.py", "--metrics-port", "99999999"], "metrics.port"),
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


def test_doctor_names_what_does_not_answer_with_a_remedy(capsys: Captured) -> None:
    places = ["--brokers", f"127.0.0.1:{free_port()}", "--redis-url", f"redis://127.0.0.1:{free_port()}/0"]
    assert exit_code_of(["doctor", *places, "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["Python"]["ok"]
    assert not found["Broker"]["ok"]
    assert "streamml dev up" in found["Redis"]["detail"]


def test_redis_that_is_not_there_is_a_sentence_and_exit_code_3(capsys: Captured) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    assert exit_code_of(["features", "versions", "route", "--redis-url", url]) == 3
    assert "cannot be reached" in capsys.readouterr().err
