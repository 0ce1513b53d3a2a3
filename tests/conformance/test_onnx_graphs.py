"""CUDA graphs of ONNX models. On the CPU nothing is captured, but buffers, numbers and sessions are handled as if it were."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped,unused-ignore]
import pytest
from onnx import ModelProto, helper

from streamml.adapters.models.onnx import OnnxModel
from streamml.adapters.models.onnx_session import OnnxSettings, open_session
from streamml.adapters.models.repository import ModelFiles
from streamml.adapters.models.warm_up import warm_up
from streamml.batch.column import Array
from streamml.errors import ConfigError, ModelRejected, StreamMLError
from tests.conformance.onnx_files import graph, identity, node, store, value

CAPTURED = OnnxSettings(bound=True, captured=(1, 2, 4))
WITHOUT = "it runs without."


def rows(number: int, first: float) -> Array:
    return np.arange(first, first + 2 * number, dtype=np.float32).reshape(number, 2)


def doubled() -> ModelProto:
    x, y = value("x", "float32", ["rows", 2]), value("y", "float32", ["rows", 2])
    return graph([node("Mul", ["x", "two"], ["y"])], [x], [y], {"two": np.array(2, np.float32)})


def chosen(wide: bool) -> ModelProto:
    """The columns of ``x`` whose first value is positive; ``wide``: declared as if all were."""
    x, y = value("x", "float32", ["rows", 2]), value("y", "float32", ["rows", 2 if wide else None])
    nodes = [
        node("Gather", ["x", "first"], ["head"], axis=0),
        node("Greater", ["head", "nil"], ["positive"]),
        node("Compress", ["x", "positive"], ["y"], axis=1),
    ]
    return graph(nodes, [x], [y], {"first": np.array(0), "nil": np.array(0, np.float32)})


def by_chance(seed: float) -> ModelProto:
    """Some columns of ``x``, others in each run."""
    x, y = value("x", "float32", ["rows", 2]), value("y", "float32", ["rows", 2])
    nodes = [
        node("RandomUniform", [], ["drawn"], shape=[2], seed=seed),
        node("Greater", ["drawn", "half"], ["kept"]),
        node("Compress", ["x", "kept"], ["y"], axis=1),
    ]
    return graph(nodes, [x], [y], {"half": np.array(0.5, np.float32)})


def noisy() -> ModelProto:
    """``x`` with noise, which is another in each run."""
    x, y = value("x", "float32", ["rows", 2]), value("y", "float32", ["rows", 2])
    return graph([node("RandomUniformLike", ["x"], ["noise"]), node("Add", ["x", "noise"], ["y"])], [x], [y])


def branching() -> ModelProto:
    """``x``, doubled where its sum is positive."""
    two = helper.make_tensor("two", 1, [], [2.0])
    branches = {
        f"{name}_branch": helper.make_graph(nodes, name, [], [value(name, "float32", ["rows", 2])], constants)
        for name, nodes, constants in (
            ("then", [node("Mul", ["x", "two"], ["then"])], [two]),
            ("else", [node("Identity", ["x"], ["else"])], []),
        )
    }
    x, y = value("x", "float32", ["rows", 2]), value("y", "float32", ["rows", 2])
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "nil"], ["positive"]),
        node("If", ["positive"], ["y"], **branches),
    ]
    return graph(nodes, [x], [y], {"nil": np.array(0, np.float32)})


@dataclass(frozen=True)
class Run:
    """One by I/O binding."""

    graph: str
    address: int
    thread: int


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """What sessions are asked for: the number of the graph, where the first output lies, and on which thread.

    A new shape runs plain, to see where its outputs lie, is captured, and replayed once, which is held against a plain run.
    """
    seen: list[Run] = []
    original = onnxruntime.InferenceSession.run_with_iobinding

    def run(session: Any, binding: Any, options: Any = None) -> None:
        original(session, binding, options)
        number = "none" if options is None else options.get_run_config_entry("gpu_graph_id")
        seen.append(Run(number, binding.get_outputs()[0].data_ptr(), threading.get_ident()))

    monkeypatch.setattr("onnxruntime.InferenceSession.run_with_iobinding", run)
    return seen


@pytest.fixture
def both_providers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A build that has CUDA, where it refuses graphs as it does with control flow; what sessions are asked for."""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    asked: list[Any] = []
    original = onnxruntime.InferenceSession

    def opened(path: str, options: Any, *, providers: list[tuple[str, dict[str, str]]], **given: Any) -> object:
        asked.append(providers)
        if "enable_cuda_graph" in providers[0][1]:
            raise RuntimeError("This session cannot use the graph capture feature as the model has control flow nodes")
        session = original(path, options, providers=both[1:], **given)
        session.get_providers = lambda: both
        return session

    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: both)
    monkeypatch.setattr("onnxruntime.InferenceSession", opened)
    return asked


def graphs_of(model: OnnxModel, runs: list[Run], *asked: Array) -> list[str]:
    """The numbers of the runs for these inputs."""
    runs.clear()
    for x in asked:
        model.run({"x": x})
    return [run.graph for run in runs]


def test_shapes_take_turns_and_what_was_answered_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = OnnxModel.load(store(tmp_path, doubled()), CAPTURED)
    asked = [rows(number, first) for first, number in enumerate((2, 4, 2, 3, 4, 1, 2, 3, 1))]
    answers = [model.run({"x": x})["y"] for x in asked]
    for x, answer in zip(asked, answers, strict=True):
        assert answer.tolist() == (x * 2).tolist()
    assert not caplog.records


def test_each_rung_has_a_number_and_a_place_of_its_own_and_other_shapes_have_none(
    tmp_path: Path, runs: list[Run]
) -> None:
    model = OnnxModel.load(store(tmp_path, doubled()), CAPTURED)
    assert graphs_of(model, runs, rows(2, 0), rows(2, 1)) == ["-1", "1", "1", "1", "1"]
    assert graphs_of(model, runs, rows(4, 0), rows(4, 1)) == ["-1", "2", "2", "2", "2"]
    assert graphs_of(model, runs, rows(3, 0), rows(3, 1)) == ["-1", "-1"]
    assert graphs_of(model, runs, rows(4, 2), rows(2, 2), rows(4, 3), rows(2, 3)) == ["2", "1", "2", "1"]
    of_four, of_two = {run.address for run in runs[::2]}, {run.address for run in runs[1::2]}
    assert (len(of_four), len(of_two), len(of_four | of_two)) == (1, 1, 2)


def test_shapes_beyond_the_64th_go_the_plain_way(
    tmp_path: Path, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: list[str] = []
    original = onnxruntime.InferenceSession.run

    def run(session: Any, outputs: Any, inputs: Any, options: Any = None) -> Any:
        plain.append(options.get_run_config_entry("gpu_graph_id"))
        return original(session, outputs, inputs, options)

    monkeypatch.setattr("onnxruntime.InferenceSession.run", run)
    model = OnnxModel.load(store(tmp_path, doubled()), replace(CAPTURED, captured=tuple(range(1, 100))))
    assert graphs_of(model, runs, *(rows(number, 0) for number in range(1, 70)))[-1] == "64"
    assert plain == ["-1"] * (64 + 5)
    assert graphs_of(model, runs, rows(64, 0), rows(69, 0)) == ["64"]


def test_lengths_are_captured_where_they_are_of_the_ladder(tmp_path: Path, runs: list[Run]) -> None:
    total = graph(
        [node("ReduceSum", ["x", "columns"], ["y"], keepdims=0)],
        [value("x", "float32", ["rows", "length"])],
        [value("y", "float32", ["rows"])],
        {"columns": np.array([1])},
    )
    model = OnnxModel.load(store(tmp_path, total), replace(CAPTURED, lengths=(3, 8)))
    asked = [np.ones((2, length), np.float32) for length in (3, 5, 8, 5, 3)]
    assert graphs_of(model, runs, *asked) == ["-1", "1", "1", "1", "-1", "-1", "3", "3", "3", "-1", "1"]
    assert model.run({"x": asked[2]})["y"].tolist() == [8, 8]


def test_all_runs_are_on_one_thread_which_ends_with_the_model(tmp_path: Path, runs: list[Run]) -> None:
    """ONNX Runtime keeps graphs by thread."""
    before = threading.enumerate()
    model = OnnxModel.load(store(tmp_path, doubled()), CAPTURED)
    (own,) = (thread for thread in threading.enumerate() if thread not in before)
    callers = [threading.Thread(target=model.run, args=({"x": rows(2, 0)},)) for _ in range(2)]
    for caller in callers:
        caller.start()
        caller.join()
    assert {run.thread for run in runs} == {own.ident}
    model.close()
    own.join(timeout=10)
    assert not own.is_alive()


@pytest.mark.parametrize("wide", [False, True])
def test_sizes_that_depend_on_values_are_never_those_of_another_batch(
    tmp_path: Path, wide: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the file says that they may; a file that says otherwise fails the batch, as it does without graphs."""
    model = OnnxModel.load(store(tmp_path, chosen(wide)), CAPTURED)
    both, one = np.array([[1, 2], [3, 4]], np.float32), np.array([[5, -6], [7, 8]], np.float32)
    assert model.run({"x": both})["y"].tolist() == both.tolist()
    if wide:
        with pytest.raises(StreamMLError):
            model.run({"x": one})
    else:
        assert model.run({"x": one})["y"].tolist() == [[5], [7]]
        assert "leaves the size of the output 'y' open" in caplog.text
    assert model.run({"x": both + 1})["y"].tolist() == (both + 1).tolist()


def test_a_shape_that_cannot_be_captured_ends_graphs_and_not_the_model(
    tmp_path: Path, runs: list[Run], caplog: pytest.LogCaptureFixture
) -> None:
    """Here its outputs do not stay where they were put, as they have other sizes by chance."""
    files = next(files for files, columns in _by_chance(tmp_path) if columns == (2, 1))
    model = OnnxModel.load(files, CAPTURED)
    x = rows(2, 0)
    assert model.run({"x": x})["y"].tolist() == x.tolist()
    assert [run.graph for run in runs] == ["-1", "none"]
    assert [record.getMessage() for record in caplog.records] == [
        "Model test@1 cannot be captured as CUDA graphs (RuntimeError in its Compress node 'Compress_y'); "
        "it runs without."
    ]


def _by_chance(root: Path) -> Iterator[tuple[ModelFiles, tuple[int, ...]]]:
    """Models, and how many columns the first two runs of each keep."""
    for number in range(1, 100):
        files = store(root / str(number), by_chance(seed=7_654_321.0 * number))
        session = open_session(files.model, OnnxSettings())
        yield files, tuple(session.run(None, {"x": rows(1, 0)})[0].shape[1] for _ in range(2))


def test_a_graph_that_does_not_answer_as_its_session_is_not_used(
    tmp_path: Path, runs: list[Run], caplog: pytest.LogCaptureFixture
) -> None:
    model = OnnxModel.load(store(tmp_path, noisy()), CAPTURED)
    warm_up(model, (1, 2, 4), repeats=1)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "a replay answers other than a run without" in said
    assert WITHOUT in said
    assert graphs_of(model, runs, rows(2, 0), rows(4, 0)) == ["none", "none"]


def test_a_graph_that_does_not_read_its_inputs_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its replays answer what the capture did, for which warming up gives zeros."""
    captured: set[str] = set()
    original = onnxruntime.InferenceSession.run_with_iobinding

    def run(session: Any, binding: Any, options: Any = None) -> None:
        number = "-1" if options is None else options.get_run_config_entry("gpu_graph_id")
        if number not in captured:
            original(session, binding, options)
        if number != "-1":
            captured.add(number)

    monkeypatch.setattr("onnxruntime.InferenceSession.run_with_iobinding", run)
    model = OnnxModel.load(store(tmp_path, doubled()), CAPTURED)
    warm_up(model, (1, 2, 4), repeats=1)
    assert "a replay answers other than a run without" in caplog.text
    assert model.run({"x": rows(2, 1)})["y"].tolist() == (rows(2, 1) * 2).tolist()


def test_nothing_is_captured_after_a_model_refused_rows(
    tmp_path: Path, runs: list[Run], caplog: pytest.LogCaptureFixture
) -> None:
    """As it may refuse those that it is warmed with; later other models are at work."""
    from_five = graph(
        [node("Sub", ["x", "five"], ["index"]), node("Gather", ["table", "index"], ["y"])],
        [value("x", "int64", ["rows"])],
        [value("y", "float32", ["rows"])],
        {"five": np.array(5), "table": np.array([1, 2, 3], np.float32)},
    )
    model = OnnxModel.load(store(tmp_path, from_five), CAPTURED)
    with pytest.raises(ModelRejected):
        warm_up(model, (1, 2, 4), repeats=1)
    assert graphs_of(model, runs, np.array([5]), np.array([6, 7])) == ["-1", "-1"]
    assert not caplog.records


def test_a_session_that_refuses_graphs_is_opened_without(
    tmp_path: Path, both_providers: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    files = store(tmp_path, branching())
    both_providers.clear()
    OnnxModel.load(files, OnnxSettings(("cuda", "cpu"), captured=(1, 2)))
    without = {"device_id": "0", "use_tf32": "0"}
    assert [providers[0][1] for providers in both_providers] == [without | {"enable_cuda_graph": "1"}, without]
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "streamml.models")
    assert "cannot be captured as CUDA graphs (This session cannot use the graph" in record.getMessage()


@pytest.mark.parametrize(
    ("providers", "captured"),
    [(("tensorrt", "cuda", "cpu"), (1, 2)), (("cuda", "cpu"), ()), (("cpu",), (1, 2))],
    ids=["tensorrt", "off", "cpu"],
)
def test_graphs_are_not_asked_for_where_they_are_off_or_would_be_one_for_all_shapes(
    providers: tuple[str, ...], captured: tuple[int, ...]
) -> None:
    assert not OnnxSettings(providers, captured=captured).graphs
    assert OnnxSettings(("cuda", "cpu"), captured=(1, 2)).graphs


@pytest.mark.parametrize(
    ("model", "version", "said"),
    [
        (identity(), "1.30.2", "ONNX Runtime 1.30.2 gives away memory"),
        (identity("text"), "1.31.0", "'x' is read or written on the CPU"),
        (identity(shape=("rows", "length")), "1.31.0", "size of the output 'y' open"),
        (
            graph(
                [node("ReduceSum", ["x", "columns"], ["y"], keepdims=0)],
                [value("x", "float32", ["rows", "length"])],
                [value("y", "float32", ["rows"])],
                {"columns": np.array([1])},
            ),
            "1.40.0.dev1",
            "rows of the input 'x' have any length",
        ),
    ],
    ids=["old", "text", "output", "length"],
)
def test_what_would_be_answered_from_the_time_of_the_capture_is_not_captured(
    tmp_path: Path,
    model: ModelProto,
    version: str,
    said: str,
    runs: list[Run],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = store(tmp_path, model)
    monkeypatch.setattr("onnxruntime.__version__", version)
    loaded = OnnxModel.load(files, CAPTURED)
    (record,) = caplog.records
    assert said in record.getMessage()
    warm_up(loaded, [1, 2], repeats=1)
    assert {run.graph for run in runs} <= {"none"}


def test_what_is_wrong_with_a_file_is_told_as_without_graphs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "model.onnx").write_bytes(identity(shape=(8, 2)).SerializeToString())
    with pytest.raises(ConfigError, match=r"exactly 8 rows"):
        OnnxModel.from_file(tmp_path / "model.onnx", "test", "1", CAPTURED)
    assert not caplog.records


def test_a_file_that_cannot_be_loaded_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = store(tmp_path, identity())
    files.model.write_bytes(files.model.read_bytes()[:40])
    with pytest.raises(ConfigError, match="cannot load"):
        OnnxModel.from_file(files.model, "test", "1", CAPTURED)
    assert not caplog.records


@pytest.mark.gpu
class TestOnGpu:
    SETTINGS = OnnxSettings(("cuda", "cpu"), captured=(1, 4, 64))

    @pytest.fixture(autouse=True)
    def where_cuda_starts(self, tmp_path: Path) -> None:
        try:
            open_session(store(tmp_path, identity(), "any").model, OnnxSettings(("cuda", "cpu")))
        except ConfigError as error:
            pytest.skip(str(error))

    def test_graphs_answer_as_the_cpu_does(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        random = np.random.default_rng(5)
        weights = {name: random.normal(size=(2, 2)).astype(np.float32) for name in ("v", "w")}
        layers = [
            node("MatMul", ["x", "v"], ["h"]),
            node("Relu", ["h"], ["r"]),
            node("MatMul", ["r", "w"], ["m"]),
            node("Concat", ["m", "x"], ["y"], axis=1),
        ]
        x, y = value("x", "float32", ["rows", 2]), value("y", "float32", ["rows", 4])
        files = store(tmp_path, graph(layers, [x], [y], weights))
        on_gpu, on_cpu = OnnxModel.load(files, self.SETTINGS), OnnxModel.load(files)
        asked = [random.normal(size=(number, 2)).astype(np.float32) for number in (1, 4, 64, 3, 64, 4, 1, 3, 4)]
        answers = [on_gpu.run({"x": one})["y"] for one in asked]
        for one, answer in zip(asked, answers, strict=True):
            np.testing.assert_allclose(answer, on_cpu.run({"x": one})["y"], rtol=1e-4, atol=1e-5)
        assert not caplog.records

    def test_control_flow_runs_without(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        model = OnnxModel.load(store(tmp_path, branching()), self.SETTINGS)
        for sign in (1, -1, 1):
            x = rows(4, 1) * np.float32(sign)
            assert model.run({"x": x})["y"].tolist() == (x * (2 if sign > 0 else 1)).tolist()
        assert WITHOUT in caplog.text

    def test_what_only_the_cpu_computes_is_computed_anew(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        codes = {"keys_int64s": [1, 2], "values_int64s": [10, 20], "default_int64": 0}
        pair = value("x", "int64", ["rows"]), value("y", "int64", ["rows"])
        encoder = graph([node("LabelEncoder", ["x"], ["y"], **codes)], [pair[0]], [pair[1]])
        model = OnnxModel.load(store(tmp_path, encoder), self.SETTINGS)
        for asked in ([1, 2, 3, 1], [2, 2, 1, 9]):
            assert model.run({"x": np.array(asked)})["y"].tolist() == [10 * one if one < 3 else 0 for one in asked]
        assert WITHOUT in caplog.text
