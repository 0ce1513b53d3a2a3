"""Replays as processes: killed, resumed by others, shared, cancelled, and without a broker in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from streamml.cli.main import exit_code_of
from streamml.errors import ConfigError
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.replay.registry import find, replays
from streamml.ops.replay.replay import Replay
from streamml.ops.replay.standing import standing
from tests.integration.replaying import Replaying
from tests.integration.scoring import Job, model, payment

pytestmark = pytest.mark.integration

TOPOLOGY = """
from pathlib import Path
from tests.integration.scoring import Job

topology = Job("{brokers}", "{redis}", Path("."), name="{name}").topology
"""
EVENTS = 300


@dataclass
class Shell:
    """The command line beside one job."""

    job: Job
    folder: Path
    guarantee: str = "exactly_once"
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        model(self.folder)
        text = TOPOLOGY.format(brokers=self.job.brokers, redis=self.job.redis_url, name=self.job.name)
        (self.folder / "job.py").write_text(text)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "STREAMML_BROKERS": self.job.brokers,
            "STREAMML_REDIS_URL": self.job.redis_url,
            "STREAMML_WORKER_PROCESSING_GUARANTEE": self.guarantee,
        }
        command, *rest = arguments
        process = subprocess.Popen(
            [sys.executable, "-m", "streamml", "replay", command, "job.py", *rest],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def type(self, command: str, *rest: str) -> int:
        """Run a command in this process; its exit code."""
        handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
        servers = ["--brokers", self.job.brokers, "--redis-url", self.job.redis_url]
        try:
            return exit_code_of(["replay", command, str(self.folder / "job.py"), *rest, *servers])
        finally:
            for one, handler in handlers.items():
                signal.signal(one, handler)

    def running(self, rate: int) -> tuple[subprocess.Popen[bytes], Replay]:
        """A replay of everything, when it has done something."""
        process = self.start("start", *RANGE, "--rate", str(rate))

        def something_is_done() -> bool:
            assert process.poll() is None, process.communicate()
            return (one := self.only()) is not None and self.done(one.number) > 0

        until(something_is_done)
        replay = self.only()
        assert replay is not None
        return process, replay

    def done(self, number: int) -> int:
        return standing(self.job.topology, self.job.settings, number).done

    def only(self) -> Replay | None:
        found = replays(self.job.settings, self.job.name)
        return found[0] if found else None

    def state(self, number: int) -> str:
        return standing(self.job.topology, self.job.settings, number).state


@pytest.fixture
def shell(kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path) -> Any:
    job = Job(kafka.bootstrap_servers, redis_server.url, tmp_path)
    job.create()
    job.features({"a1": 10.0})
    job.produce([payment(number) for number in range(EVENTS)])
    made = Shell(job, tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(true: Callable[[], bool], seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


RANGE = ("--from", "0", "--to", str(EVENTS // 2), "--yes", "--json")


def test_kill_9_in_the_middle_and_a_resume_loses_nothing_and_writes_nothing_twice(shell: Shell) -> None:
    """D3.7."""
    killed, replay = shell.running(60)
    assert shell.state(replay.number) == "running"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert 0 < shell.done(replay.number) < EVENTS
    done = Replaying(shell.job, "exactly_once").resume(replay.number)
    assert (done.state, done.died) == ("done", 1)
    assert Replaying(shell.job).ids(replay) == Counter(f"p{number}" for number in range(EVENTS))
    with pytest.raises(ConfigError, match=f"Replay {replay.number} is done"):
        Replaying(shell.job).resume(replay.number)


@pytest.mark.timeout(240)  # Five processes one after the other, on whatever machine.
def test_ctrl_c_interrupts_a_replay_and_a_cancellation_from_elsewhere_ends_it_for_good(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    running, replay = shell.running(20)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=100)
    number = str(replay.number)
    assert (running.returncode, f"replay resume job.py {number}" in err.decode()) == (130, True)
    assert shell.state(replay.number) == "interrupted"
    stopped = find(shell.job.settings, shell.job.name, replay.number)
    assert (stopped.died, stopped.counts["predictions"]) == (0, Replaying(shell.job).ids(replay).total())

    resumed = shell.start("resume", number, "--workers", "2", "--rate", "20", "--json")
    until(lambda: shell.state(replay.number) == "running" and shell.done(replay.number) > stopped.counts["consumed"])
    assert shell.type("list", "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["state"], listed["number"]) == ("running", replay.number)
    assert listed["running_at"][0].startswith(listed["by"])
    assert shell.type("cancel", number) == 0
    out, err = resumed.communicate(timeout=100)
    assert (resumed.returncode, json.loads(out)["state"]) == (130, "cancelled"), err.decode()
    ended = find(shell.job.settings, shell.job.name, replay.number)
    assert (ended.state, ended.counts["predictions"]) == ("cancelled", Replaying(shell.job).ids(replay).total())
    assert 0 < ended.counts["predictions"] < EVENTS
    capsys.readouterr()
    assert shell.type("show", number) == 0
    assert "cancelled by" in capsys.readouterr().out
    assert shell.type("cancel", number) == 2
    assert "is cancelled already" in capsys.readouterr().err


def test_who_cannot_be_asked_has_to_say_yes_and_nothing_is_written(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.type("start", "--from", "0", "--to", "10") == 2
    assert "add --yes" in capsys.readouterr().err
    assert shell.only() is None


def test_a_backtest_is_one_command_with_an_exit_code(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is live here, so every row is only in the run."""
    page = shell.folder / "page.html"
    some = ("--from", "0", "--to", "10", "--yes")
    assert shell.type("start", *some, "--json", "--fail-if", "extra > 10%", "--page", str(page)) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["comparison"]["counts"]["extra"]) == ("done", 20)
    assert told["comparison"]["failed"] == ["extra > 10%: there are 20 of 20 rows, 100.00 %"]
    assert "<svg" in page.read_text()
    assert shell.type("start", *some, "--fail-if", "changed > 0") == 0
    capsys.readouterr()
    assert shell.type("start", *some, "--threshold", "nothing=1") == 2
    assert "no field 'nothing'" in capsys.readouterr().err
    assert len(replays(shell.job.settings, shell.job.name)) == 2
