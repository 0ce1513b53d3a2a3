"""Models obey their port; what is true of one adapter only is below."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped,unused-ignore]
import pytest
from onnx import ModelProto, TensorProto, helper

from streamml.adapters.memory.model import FunctionModel, ModelFunction
from streamml.adapters.models.model_toml import sha256_of
from streamml.adapters.models.onnx import OnnxModel, translated
from streamml.adapters.models.onnx_bound import places
from streamml.adapters.models.onnx_session import OnnxSettings, signature_of
from streamml.adapters.models.repository import find
from streamml.adapters.models.warm_up import warm_up
from streamml.batch.column import Array
from streamml.errors import ConfigError, ModelBusy, ModelFault, ModelOutOfMemory, ModelRejected, StreamMLError
from streamml.ports.model import Model, Signature, Tensor
from tests.conformance.model_behaviours import SECRET, SIGNATURES, ModelBehaviours, text
from tests.conformance.onnx_files import graph, identity, node, store, value
from tests.conformance.python_factories import WEIGHTS

CODES = {"red": 1, "é": 2}


def _out_of_memory(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    raise MemoryError


FUNCTIONS: dict[str, ModelFunction] = {
    "scores": lambda columns: {"y": columns["x"] @ WEIGHTS},
    "several": lambda c: {"total": c["a"].astype(np.float64) + c["b"] + c["c"], "b_again": c["b"]},
    "text": lambda c: {"t_again": c["t"], "code": np.array([CODES.get(t, 0) for t in c["t"]])},
    "matrix": lambda columns: {"y": columns["x"].transpose(0, 2, 1)},
    "ragged": lambda columns: {"y": columns["x"].sum(axis=1)},
    **dict.fromkeys(("half", "double", "bool", "int32"), lambda columns: {"y": columns["x"]}),
    "first_row": lambda columns: {"y": columns["x"][:1]},
    "other_shape": lambda columns: {"y": columns["x"]},
    "picky": lambda columns: {"y": np.array([0, 1, 2], np.float32)[columns["i"]]},
    "greedy": _out_of_memory,
}


def _graphs() -> dict[str, ModelProto]:
    x3, y = value("x", "float32", ["rows", 3]), value("y", "float32", ["rows"])
    column = {"columns": np.array([1])}
    vast = {"size": np.array([1, 1 << 50]), **column}
    first = {"from": np.array([0]), "to": np.array([1])}
    several = [value("a", "float32", ["rows"]), value("b", "int64", ["rows"]), value("c", "bool", ["rows"])]
    total = [value("total", "float64", ["rows"]), value("b_again", "int64", ["rows"])]
    texts = [value("t_again", "text", ["rows"]), value("code", "int64", ["rows"])]
    label = {"keys_strings": ["red", "é"], "values_int64s": [1, 2], "default_int64": 0}
    return {
        "scores": graph([node("MatMul", ["x", "w"], ["y"])], [x3], [y], {"w": WEIGHTS}),
        "several": graph(
            [
                *(node("Cast", [name], [f"{name}_double"], to=TensorProto.DOUBLE) for name in "abc"),
                node("Sum", ["a_double", "b_double", "c_double"], ["total"]),
                node("Identity", ["b"], ["b_again"]),
            ],
            several,
            total,
        ),
        "text": graph(
            [node("Identity", ["t"], ["t_again"]), node("LabelEncoder", ["t"], ["code"], **label)],
            [value("t", "text", ["rows"])],
            texts,
        ),
        "matrix": graph(
            [node("Transpose", ["x"], ["y"], perm=[0, 2, 1])],
            [value("x", "float32", ["rows", 2, 3])],
            [value("y", "float32", ["rows", 3, 2])],
        ),
        "ragged": graph(
            [node("ReduceSum", ["x", "columns"], ["y"], keepdims=0)],
            [value("x", "float32", ["rows", "length"])],
            [y],
            column,
        ),
        "half": identity("float16"),
        "double": identity("float64"),
        "bool": identity("bool"),
        "int32": identity("int32"),
        "first_row": graph(
            [node("Slice", ["x", "from", "to"], ["y"])], [x3], [value("y", "float32", ["some", 3])], first
        ),
        "other_shape": graph(
            [node("Identity", ["x"], ["y"])],
            [value("x", "float32", ["rows", None])],
            [value("y", "float32", ["rows", 3])],
        ),
        "picky": graph(
            [node("Gather", ["table", "i"], ["y"])],
            [value("i", "int64", ["rows"])],
            [y],
            {"table": np.array([0, 1, 2], np.float32)},
        ),
        "greedy": graph(
            [node("Expand", ["x", "size"], ["vast"]), node("ReduceSum", ["vast", "columns"], ["y"], keepdims=0)],
            [value("x", "float32", ["rows", 1])],
            [y],
            vast,
        ),
    }


def function_model(name: str) -> FunctionModel:
    return FunctionModel(name.replace("_", "-"), "1", SIGNATURES[name], FUNCTIONS[name])


class TestFunctionModel(ModelBehaviours):
    @pytest.fixture
    def models(self) -> Mapping[str, Model]:
        return {name: function_model(name) for name in SIGNATURES}


class TestOnnxModel(ModelBehaviours):
    @pytest.fixture(
        params=[
            OnnxSettings(),
            OnnxSettings(bound=True),
            OnnxSettings(bound=True, captured=tuple(range(1, 101)), lengths=tuple(range(1, 10))),
        ],
        ids=["plain", "bound", "captured"],
    )
    def models(self, tmp_path: Path, request: pytest.FixtureRequest) -> Mapping[str, Model]:
        settings = request.param
        return {
            name: OnnxModel.load(store(tmp_path, model, name.replace("_", "-")), settings)
            for name, model in _graphs().items()
        }


class TestFunctionModelOnly:
    def test_function_that_answers_another_type_is_a_fault(self) -> None:
        model = FunctionModel("m", "1", SIGNATURES["scores"], lambda columns: {"y": np.zeros(len(columns["x"]))})
        with pytest.raises(ModelFault, match=r"Output 'y' of model m@1 is float64\[2\] instead of float32\[rows\]"):
            model.run({"x": np.zeros((2, 3), np.float32)})

    @pytest.mark.parametrize("answer", [{}, {"z": np.zeros(2, np.float32)}, None, {"y": [0.0, 0.0]}])
    def test_function_that_answers_something_else_is_a_fault(self, answer: Mapping[str, Array]) -> None:
        model = FunctionModel("m", "1", SIGNATURES["scores"], lambda columns: answer)
        with pytest.raises(ModelFault, match="m@1"):
            model.run({"x": np.zeros((2, 3), np.float32)})

    @pytest.mark.parametrize("error", [ModelBusy("later"), ModelRejected("no"), ModelFault("broken")])
    def test_function_may_raise_what_a_model_raises(self, error: StreamMLError) -> None:
        def function(columns: Mapping[str, Array]) -> Mapping[str, Array]:
            raise error

        model = FunctionModel("m", "1", SIGNATURES["scores"], function)
        with pytest.raises(type(error)) as raised:
            model.run({"x": np.zeros((2, 3), np.float32)})
        assert raised.value is error

    def test_exception_of_the_function_is_the_cause(self) -> None:
        with pytest.raises(ModelRejected, match="IndexError") as rejected:
            function_model("picky").run({"i": np.array([SECRET])})
        assert isinstance(rejected.value.__cause__, IndexError)

    def test_unusable_declaration_is_refused_with_every_problem(self) -> None:
        signature = Signature({"": Tensor("float32", ())}, {"y": Tensor("f4", ()), "z": Tensor("string", ())})
        with pytest.raises(ConfigError) as refused:
            FunctionModel("", "", signature, lambda columns: columns)
        assert len(refused.value.problems) == 5
        with pytest.raises(ConfigError, match="no input"):
            FunctionModel("m", "1", Signature({}, {"y": Tensor("float32", ())}), lambda columns: columns)


class TestOnnxModelOnly:
    def test_message_of_the_runtime_is_not_chained_because_it_quotes_values(self, tmp_path: Path) -> None:
        model = OnnxModel.load(store(tmp_path, _graphs()["picky"]))
        with pytest.raises(ModelRejected, match="Gather node 'Gather_y'") as rejected:
            model.run({"i": np.array([SECRET])})
        assert str(SECRET) not in "".join(traceback.format_exception(rejected.value))
        assert rejected.value.__context__ is None

    def test_values_are_not_logged(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        model = OnnxModel.load(store(tmp_path, _graphs()["picky"]))
        capfd.readouterr()
        with pytest.raises(ModelRejected):
            model.run({"i": np.array([SECRET])})
        assert capfd.readouterr() == ("", "")

    def test_text_that_is_not_unicode_is_rejected(self, tmp_path: Path) -> None:
        model = OnnxModel.load(store(tmp_path, _graphs()["text"]))
        with pytest.raises(ModelRejected, match="not valid Unicode"):
            model.run({"t": text("red", "\ud800")})

    @pytest.mark.parametrize("bound", [False, True])
    def test_answers_are_its_own_memory(self, tmp_path: Path, bound: bool) -> None:
        model = OnnxModel.load(store(tmp_path, identity()), OnnxSettings(bound=bound))
        x = np.ones((2, 2), np.float32)
        first = model.run({"x": x})["y"]
        model.run({"x": x * 5})
        assert not np.shares_memory(first, x)
        assert first.tolist() == [[1, 1], [1, 1]]

    def test_bound_buffers_are_made_once_for_a_shape_and_for_64_shapes_at_most(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[int] = []
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type

        def counted(shape: list[int], *rest: object) -> object:
            made.append(shape[0])
            return make(shape, *rest)

        monkeypatch.setattr("onnxruntime.OrtValue.ortvalue_from_shape_and_type", counted)
        model = OnnxModel.load(store(tmp_path, identity()), OnnxSettings(bound=True))
        for rows in [*range(1, 71), *range(1, 71)]:
            x = np.full((rows, 2), rows, np.float32)
            assert model.run({"x": x[::-1]})["y"].tolist() == x.tolist()
        assert made == list(range(1, 65))

    @pytest.mark.parametrize("bound", [False, True])
    def test_sizes_of_outputs_may_depend_on_values(self, tmp_path: Path, bound: bool) -> None:
        positive = graph(
            [
                node("Gather", ["x", "first"], ["head"], axis=0),
                node("Greater", ["head", "nil"], ["kept"]),
                node("Compress", ["x", "kept"], ["y"], axis=1),
            ],
            [value("x", "float32", ["rows", 2])],
            [value("y", "float32", ["rows", None])],
            {"first": np.array(0), "nil": np.array(0, np.float32)},
        )
        model = OnnxModel.load(store(tmp_path, positive), OnnxSettings(bound=bound))
        for head, columns in (([1, 2], [0, 1]), ([5, -6], [0]), ([1, 1], [0, 1]), ([-1, -1], [])):
            x = np.array([head, [3, 4]], np.float32)
            assert model.run({"x": x})["y"].tolist() == x[:, columns].tolist()

    def test_an_input_that_is_read_on_the_cpu_has_its_buffer_there(self) -> None:
        """As with trees, for which CUDA has no operator."""
        inputs = [types.SimpleNamespace(name=name) for name in ("x", "trees")]
        memory = [types.SimpleNamespace(name=name) for name in ("Cuda", "Cpu")]
        assert places(inputs, memory, ("cuda", 1)) == {"x": ("cuda", 1), "trees": ("cpu", 0)}

    def test_output_whose_rows_a_converter_declared_wrongly_is_taken(self, tmp_path: Path) -> None:
        wrong = graph(
            [node("Identity", ["x"], ["y"])],
            [value("x", "float32", ["rows"])],
            [value("y", "float32", [1])],
        )
        model = OnnxModel.load(store(tmp_path, wrong))
        assert model.run({"x": np.array([1, 2, 3], np.float32)})["y"].tolist() == [1, 2, 3]

    def test_fixed_batch_is_refused_with_a_remedy(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"Input 'x' .* exactly 8 rows .* dynamic"):
            store(tmp_path, identity(shape=(8, 2)))

    def test_zipmap_is_refused_with_a_remedy(self, tmp_path: Path) -> None:
        classifier = graph(
            [node("ZipMap", ["x"], ["y"], classlabels_int64s=[0, 1])],
            [value("x", "float32", ["rows", 2])],
            [
                helper.make_value_info(
                    "y",
                    helper.make_sequence_type_proto(
                        helper.make_map_type_proto(
                            TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
                        )
                    ),
                )
            ],
        )
        with pytest.raises(ConfigError, match=r"Output 'y' .* seq\(map\(.* zipmap=False"):
            store(tmp_path, classifier)

    @pytest.mark.parametrize("shape", [(), None])
    def test_value_without_rows_is_refused(self, tmp_path: Path, shape: tuple[int, ...] | None) -> None:
        scalar = graph([node("Identity", ["x"], ["y"])], [value("x", "float32", shape)], [value("y", "float32", shape)])
        with pytest.raises(ConfigError) as refused:
            store(tmp_path, scalar)
        assert len(refused.value.problems) == 2
        assert all("[rows, ...]" in problem for problem in refused.value.problems)

    def test_type_that_numpy_lacks_is_refused(self, tmp_path: Path) -> None:
        info = helper.make_tensor_value_info("x", TensorProto.BFLOAT16, ["rows"])
        answer = helper.make_tensor_value_info("y", TensorProto.BFLOAT16, ["rows"])
        with pytest.raises(ConfigError, match="bfloat16"):
            store(tmp_path, graph([node("Identity", ["x"], ["y"])], [info], [answer]))

    def test_declared_signature_is_held_against_the_file(self, tmp_path: Path) -> None:
        store(tmp_path, _graphs()["several"])
        toml = tmp_path / "test" / "1" / "model.toml"
        wrong = toml.read_text().replace("inputs.a]", "inputs.aa]").replace('"int64"', '"int32"')
        toml.write_text(wrong)
        with pytest.raises(ConfigError) as refused:
            OnnxModel.load(find(tmp_path, "test"))
        problems = "\n".join(refused.value.problems)
        assert len(refused.value.problems) == 3
        assert "declares the inputs aa, b, c, but model.onnx has a, b, c" in problems
        assert "[signature.inputs.b] as int32[rows], but in model.onnx it is int64[rows]" in problems
        assert "[signature.outputs.b_again] as int32[rows]" in problems

    def test_declared_order_is_held_against_the_file(self, tmp_path: Path) -> None:
        files = store(tmp_path, _graphs()["several"])
        toml = files.folder / "model.toml"
        head, a, b, c, *rest = toml.read_text().split("[signature.")
        toml.write_text("[signature.".join([head, b, a, c, *rest]))
        with pytest.raises(ConfigError, match=r"declares the inputs b, a, c, but model.onnx has a, b, c"):
            OnnxModel.load(find(tmp_path, "test"))

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_pickle_is_refused_and_does_not_run(self, tmp_path: Path, protocol: int) -> None:
        """L5.1."""
        marker = tmp_path / "the-pickle-ran"
        files = store(tmp_path, identity())
        files.model.write_bytes(pickle.dumps(_Trap(marker), protocol))
        toml = files.folder / "model.toml"
        toml.write_text(toml.read_text().replace(files.sha256, sha256_of(files.model)))
        with pytest.raises(ConfigError, match=r"not an ONNX model.*pickle"):
            find(tmp_path, "test")
        with pytest.raises(ConfigError, match=r"cannot load .*pickle"):
            signature_of(files.model)
        assert not marker.exists()
        pickle.loads(files.model.read_bytes())
        assert marker.exists()

    def test_missing_runtime_says_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = store(tmp_path, identity())
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(ConfigError, match=r"pip install streamml\[cpu\]"):
            OnnxModel.load(files)

    def test_adapter_is_imported_without_the_runtime(self) -> None:
        code = "import sys, streamml.adapters.models.onnx; sys.exit('onnxruntime' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    @pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
    def test_provider_that_is_not_installed_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
    ) -> None:
        files = store(tmp_path, identity())
        monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
        with pytest.raises(ConfigError, match=f"'{provider}' is not in the installed .*CPUExecution.*pip install"):
            OnnxModel.load(files, OnnxSettings(providers=(provider, "cpu")))

    def test_provider_that_does_not_start_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = store(tmp_path, identity())
        both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        session = types.SimpleNamespace(get_providers=lambda: both[1:])
        asked: dict[str, Any] = {}

        def opened(path: str, options: Any, **given: object) -> object:
            asked.update(given, path=path, options=options)
            return session

        monkeypatch.setattr("onnxruntime.get_available_providers", lambda: both)
        monkeypatch.setattr("onnxruntime.InferenceSession", opened)
        with pytest.raises(ConfigError, match="'cuda' is in the installed ONNX Runtime but does not start"):
            OnnxModel.load(files, OnnxSettings(providers=("cuda", "cpu"), device=1))
        assert asked["providers"] == [(both[0], {"device_id": "1", "use_tf32": "0"}), (both[1], {})]

    @pytest.mark.parametrize(("spinning", "said"), [(False, "0"), (True, "1")])
    def test_session_is_opened_as_the_settings_say(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spinning: bool, said: str
    ) -> None:
        files = store(tmp_path, identity())
        asked: dict[str, Any] = {}
        original = onnxruntime.InferenceSession

        def opened(path: str, options: Any, **given: Any) -> object:
            asked.update(given, path=path, options=options)
            return original(path, options, **given)

        monkeypatch.setattr("onnxruntime.InferenceSession", opened)
        OnnxModel.load(files, OnnxSettings(threads=3, spinning=spinning))
        options = asked["options"]
        assert asked["path"] == str(files.model)
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == said
        assert options.get_session_config_entry("session.load_model_format") == "ONNX"
        assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        assert (asked["enable_fallback"], asked["read_config_from_model"]) == (0, 0)

    def test_wrong_settings_are_refused_all_at_once(self, tmp_path: Path) -> None:
        files = store(tmp_path, identity())
        with pytest.raises(ConfigError) as refused:
            OnnxModel.load(files, OnnxSettings(providers=("gpu", "tpu"), threads=0, device=-1))
        assert len(refused.value.problems) == 4
        with pytest.raises(ConfigError, match="no provider"):
            OnnxModel.load(files, OnnxSettings(providers=()))

    @pytest.mark.parametrize("threads", [1, 2])
    def test_threads_and_spinning_change_no_answer(self, tmp_path: Path, threads: int) -> None:
        files = store(tmp_path, _graphs()["scores"])
        x = np.random.default_rng(3).normal(size=(4096, 3)).astype(np.float32)
        model = OnnxModel.load(files, OnnxSettings(threads=threads, spinning=threads > 1))
        np.testing.assert_allclose(model.run({"x": x})["y"], x @ WEIGHTS, rtol=1e-4, atol=1e-5)

    def test_threads_that_each_own_a_model_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        files = [store(tmp_path, _scaled(factor), f"times-{factor}") for factor in range(1, 5)]
        wrong: list[str] = []
        done: list[int] = []

        def score(factor: int) -> None:
            model = OnnxModel.load(files[factor - 1])
            x = np.random.default_rng(factor).normal(size=(64, 2)).astype(np.float32)
            for _ in range(100):
                agrees = np.array_equal(model.run({"x": x})["y"], x * factor)
                wrong.extend([] if agrees else [model.name])
            model.close()
            done.append(factor)

        threads = [threading.Thread(target=score, args=(factor,)) for factor in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert sorted(done) == [1, 2, 3, 4]
        assert wrong == []


class _Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._marker),)


def _scaled(factor: int) -> ModelProto:
    pair = value("x", "float32", ["rows", 2]), value("y", "float32", ["rows", 2])
    return graph([node("Mul", ["x", "k"], ["y"])], [pair[0]], [pair[1]], {"k": np.array(factor, np.float32)})


class EPFail(Exception):
    """Named as ONNX Runtime names its own."""


class Fail(Exception):
    """Named as ONNX Runtime names its own."""


RUNNING = "Non-zero status code returned while running Gemm node. Name:'fc1' Status Message: "


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (MemoryError(), ModelOutOfMemory),
        (
            Fail(RUNNING + "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 9"),
            ModelOutOfMemory,
        ),
        (Fail(RUNNING + "std::bad_alloc"), ModelOutOfMemory),
        (Fail("CUDA failure 2: out of memory ; GPU=0 ; hostname=h"), ModelOutOfMemory),
        (Fail("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0"), ModelOutOfMemory),
        (Fail("CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), ModelOutOfMemory),
        (Fail(RUNNING + "CUDA failure 700: an illegal memory access was encountered"), ModelFault),
        (Fail(RUNNING + "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED"), ModelFault),
        (EPFail(RUNNING + "TensorRT EP execution context enqueue failed."), ModelFault),
        (Fail(RUNNING + "indices element out of data bounds, idx=7"), ModelRejected),
        (Fail("the session is not initialized"), ModelFault),
        (ValueError("?"), ModelFault),
    ],
    ids=lambda value: str(value)[-40:] if isinstance(value, Exception) else value.__name__,
)
def test_exception_of_the_runtime_is_sorted_by_what_happens_next(error: Exception, meaning: type) -> None:
    translation = translated(error, "m@1")
    assert type(translation) is meaning
    assert "m@1" in str(translation)
    assert "idx=7" not in str(translation)


class TestWarmUp:
    def test_seconds_are_measured_for_each_size(self) -> None:
        seen: list[int] = []

        def function(columns: Mapping[str, Array]) -> Mapping[str, Array]:
            seen.append(len(columns["x"]))
            return {"y": columns["x"] @ WEIGHTS}

        seconds = warm_up(FunctionModel("m", "1", SIGNATURES["scores"], function), [8, 1, 8], repeats=3)
        assert list(seconds) == [1, 8]
        assert all(cost > 0 for cost in seconds.values())
        assert seen == [1] * 4 + [8] * 4

    @pytest.mark.parametrize("name", ["several", "text", "matrix", "ragged", "half"])
    def test_inputs_are_made_up_where_no_sample_is_given(self, tmp_path: Path, name: str) -> None:
        assert set(warm_up(OnnxModel.load(store(tmp_path, _graphs()[name])), [1, 3])) == {1, 3}

    def test_sample_is_repeated_up_to_the_size(self) -> None:
        seen: list[list[str]] = []

        def function(columns: Mapping[str, Array]) -> Mapping[str, Array]:
            seen.append(columns["t"].tolist())
            return FUNCTIONS["text"](columns)

        model = FunctionModel("m", "1", SIGNATURES["text"], function)
        warm_up(model, [5], sample={"t": text("red", "é")}, repeats=1)
        assert seen == [["red", "é", "red", "é", "red"]] * 2

    def test_sizes_that_do_not_fit_are_left_out(self) -> None:
        def function(columns: Mapping[str, Array]) -> Mapping[str, Array]:
            if len(columns["x"]) > 10:
                raise MemoryError
            return {"y": columns["x"] @ WEIGHTS}

        model = FunctionModel("m", "1", SIGNATURES["scores"], function)
        assert list(warm_up(model, [1, 10, 100, 1000])) == [1, 10]
        with pytest.raises(ModelOutOfMemory):
            warm_up(model, [100])

    def test_model_that_answers_the_wrong_rows_is_found_out(self, tmp_path: Path) -> None:
        model = OnnxModel.load(store(tmp_path, _graphs()["first_row"]))
        with pytest.raises(ModelFault, match="1 rows instead of 2"):
            warm_up(model, [1, 2])
