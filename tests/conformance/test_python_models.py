"""What is true of `sm.Python` beyond the port: threads, processes, timeouts, crashes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import psutil
import pytest

import streamml as sm
from streamml.adapters.models.python import PythonModel, open_lanes
from streamml.adapters.models.python_process import ProcessScorer
from streamml.errors import ConfigError, ModelBusy, ModelFault, ModelOutOfMemory, ModelRejected
from streamml.ports.model import Model, PartialAnswer
from tests.conformance import python_factories
from tests.conformance.model_behaviours import SIGNATURES, ModelBehaviours
from tests.conformance.python_factories import (
    crashes_above_nine,
    fails_odd_rows,
    hangs_at_nine,
    is_busy,
    prints,
    raises,
    where_it_runs,
)

BOTH = pytest.mark.parametrize("isolation", ["thread", "process"])


@contextmanager
def loaded(factory: Callable[[], object], isolation: str, output: str, **calls: object) -> Iterator[PythonModel]:
    """A model of one integer ``i``."""
    step = sm.Python(
        factory,  # type: ignore[arg-type]
        inputs={"i": "i8"},
        outputs=dict.fromkeys(output.split(), "i8"),
        version="1",
        isolation=isolation,  # type: ignore[arg-type]
        calls=sm.Calls(**calls),  # type: ignore[arg-type]
    )
    model = PythonModel.load(step)
    try:
        yield model
    finally:
        model.close()


def numbers(*values: int) -> Mapping[str, np.ndarray]:
    return {"i": np.array(values, np.int64)}


class _Models(dict[str, Model]):
    """Models of the suite, loaded when they are asked for, and kept for all tests: a process each takes its time."""

    def __init__(self, isolation: str) -> None:
        super().__init__()
        self._isolation = isolation

    def __missing__(self, name: str) -> Model:
        label = name.replace("_", "-")
        factory = getattr(python_factories, f"make_{name}")
        lanes = open_lanes(factory, f"{label}@1", SIGNATURES[name], sm.Calls(), self._isolation)
        self[name] = PythonModel(label, "1", SIGNATURES[name], lanes, sm.Calls())
        return self[name]


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, _Models]]:
    models = {isolation: _Models(isolation) for isolation in ("thread", "process")}
    yield models
    for model in (model for every in models.values() for model in every.values()):
        model.close()


@BOTH
class TestPythonModel(ModelBehaviours):
    @pytest.fixture
    def models(
        self, isolation: str, opened: dict[str, _Models], request: pytest.FixtureRequest
    ) -> Iterator[Mapping[str, Model]]:
        yield opened[isolation]
        if "closed" in request.node.name:
            opened[isolation].pop("scores", None)


@BOTH
def test_batch_is_cut_into_calls_of_which_several_run_at_once(isolation: str) -> None:
    with loaded(where_it_runs, isolation, "process thread", rows=2, concurrency=3) as model:
        answer = model.run(numbers(*range(7)))
        own = {os.getpid()}
        lanes = {(process, thread) for process, thread in zip(answer["process"], answer["thread"], strict=True)}
    assert len(answer["process"]) == 7
    assert 2 <= len(lanes) <= 3
    assert (set(answer["process"].tolist()) == own) == (isolation == "thread")


@BOTH
def test_order_of_rows_is_kept_over_calls(isolation: str) -> None:
    with loaded(fails_odd_rows, isolation, "half", rows=2, concurrency=2) as model:
        answer = model.run(numbers(*range(9)))
    assert isinstance(answer, PartialAnswer)
    assert answer["half"].tolist() == [row // 2 for row in range(9)]
    assert dict(answer.failed) == dict.fromkeys((1, 3, 5, 7), "The number is odd.")


@BOTH
def test_what_the_function_says_of_waiting_is_passed_on(isolation: str) -> None:
    with loaded(is_busy, isolation, "half") as model, pytest.raises(ModelBusy, match="asks to wait") as busy:
        model.run(numbers(1))
    assert busy.value.retry_in_s == 7.0


@BOTH
def test_factory_that_raises_is_refused_before_start(isolation: str) -> None:
    refused = pytest.raises(ConfigError, match=r"factory of model raises@1 raised FileNotFoundError.*model.txt")
    with refused, loaded(raises, isolation, "half"):
        pass


@BOTH
def test_call_that_takes_too_long_is_given_up_and_the_model_lives_on(isolation: str) -> None:
    with loaded(hangs_at_nine, isolation, "process", timeout="1s", concurrency=2) as model:
        began = time.monotonic()
        with pytest.raises(ModelBusy, match="longer than its timeout of 1"):
            model.run(numbers(9))
        assert time.monotonic() - began < 20
        assert len(model.run(numbers(1))["process"]) == 1


def test_process_that_crashes_is_started_anew_and_the_rows_are_bisected() -> None:
    with loaded(crashes_above_nine, "process", "process") as model:
        first = model.run(numbers(1))["process"][0]
        with pytest.raises(ModelRejected, match="ended by SIGSEGV on these rows"):
            model.run(numbers(1, 13))
        second = model.run(numbers(1))["process"][0]
    assert first != second
    assert os.getpid() not in (first, second)


def test_m5_process_that_the_kernel_killed_had_too_little_memory() -> None:
    killed = pytest.raises(ModelOutOfMemory, match="SIGKILL")
    with loaded(crashes_above_nine, "process", "process") as model, killed:
        model.run(numbers(1, 99))


def test_process_that_dies_of_any_row_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamml.adapters.models.python_process._MOST_ALONE", 2)
    with loaded(crashes_above_nine, "process", "process") as model:
        with pytest.raises(ModelRejected):
            model.run(numbers(13))
        with pytest.raises(ModelFault, match="2 rows one after the other"):
            model.run(numbers(13))


def test_processes_end_with_the_model() -> None:
    with loaded(where_it_runs, "process", "process thread", concurrency=2, rows=1) as model:
        processes = set(model.run(numbers(1, 2))["process"].tolist())
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_process_that_was_ended_with_its_model_is_not_started_anew_by_a_call_that_it_cut_off() -> None:
    with loaded(where_it_runs, "process", "process thread") as model:
        signature = model.signature
    (scorer,) = ProcessScorer.start_all(where_it_runs, "model@1", signature, None, 1)
    before = psutil.Process().children()
    scorer.close()
    with pytest.raises(ModelFault, match="was closed"):
        scorer(numbers(1))
    assert set(psutil.Process().children()) < set(before)


def test_what_a_process_prints_leaves_stdout_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with loaded(prints, "process", "half") as model:
        model.run(numbers(4))
    assert capfd.readouterr().out == ""


def test_factory_that_no_other_process_finds_is_refused() -> None:
    def local() -> object:
        return prints()

    with pytest.raises(ConfigError, match="top of a file"), loaded(local, "process", "half"):
        pass


def test_calls_wait_for_their_turn() -> None:
    with loaded(fails_odd_rows, "thread", "half", rows=1, rate=50) as model:
        began = time.monotonic()
        model.run(numbers(*range(11)))
        assert time.monotonic() - began >= 0.19


def test_cost_cap_makes_batches_wait_for_the_next_day() -> None:
    with loaded(fails_odd_rows, "thread", "half", cost=0.5, cost_cap=2.0) as model:
        model.run(numbers(2, 4, 6))
        with pytest.raises(ModelBusy, match="cost_cap") as busy:
            model.run(numbers(2, 4))
        assert busy.value.retry_in_s is not None
        assert 86_000 < busy.value.retry_in_s <= 86_400
        model.run(numbers(2))


_WORKER = """
import numpy as np
import streamml as sm
from streamml.adapters.models.python import PythonModel
from tests.conformance.python_factories import holds_the_lock_at_nine
model = PythonModel.load(
    sm.Python(holds_the_lock_at_nine, inputs={"i": "i8"}, outputs={"process": "i8"}, version="1", isolation="process")
)
print(model.run({"i": np.array([1])})["process"][0], flush=True)
model.run({"i": np.array([9])})
"""


def test_process_that_is_busy_ends_with_a_worker_that_is_killed() -> None:
    """Even where native code lets no thread of it see that."""
    worker = subprocess.Popen([sys.executable, "-c", _WORKER], stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout is not None
        process = int(worker.stdout.readline())
        used = psutil.Process(process).cpu_times().user
        while psutil.Process(process).cpu_times().user < used + 0.2:
            time.sleep(0.02)
    finally:
        worker.kill()
        worker.communicate()
    deadline = time.monotonic() + 20
    while _runs(process):
        assert time.monotonic() < deadline, "the model's process outlives its worker"
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
