"""PyTorch models obey their port; what is true of them only is below. Run by ``make test-torch``."""

from __future__ import annotations

import io
import json
import pickle
import threading
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import streamml as sm
from streamml.adapters.models.model_toml import write_toml
from streamml.errors import ConfigError, ModelFault, ModelOutOfMemory, ModelRejected
from streamml.ports.model import Model, Signature, Tensor
from streamml.testing import TopologyDriver
from streamml.topology.model_steps import Torch
from tests.conformance.model_behaviours import SIGNATURES, ModelBehaviours
from tests.conformance.python_factories import WEIGHTS

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from streamml.adapters.models.torch import TorchModel, TorchSettings, translated  # noqa: E402
from streamml.adapters.models.torch_trace import check_trace, traced  # noqa: E402


class Net(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
    """A function as a module, with the suite's weights."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("w", torch.zeros(3))
        self.register_buffer("table", torch.zeros(3))

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "scores": lambda net, x: x @ net.w,
    "several": lambda net, a, b, c: (a.double() + b + c, b.clone()),
    "matrix": lambda net, x: x.transpose(1, 2),
    "ragged": lambda net, x: {"y": x.sum(dim=1)},
    **dict.fromkeys(("half", "double", "bool", "int32"), lambda net, x: x),
    "first_row": lambda net, x: x[:1],
    "other_shape": lambda net, x: x,
    "picky": lambda net, i: net.table[i],
    "greedy": lambda net, x: torch.ones(len(x), 1 << 50).sum(dim=1),
}


def store(root: Path, name: str, signature: Signature, *, sample: Mapping[str, Any] | None = None) -> None:
    """The suite's weights in a repository."""
    folder = root / name / "1"
    folder.mkdir(parents=True)
    weights = {"w": torch.from_numpy(WEIGHTS.copy()), "table": torch.tensor([0.0, 1.0, 2.0])}
    safetensors.save_file(weights, folder / "model.safetensors")
    if sample is not None:
        np.savez(folder / "sample.npz", **sample)
    write_toml(folder, signature)


def step(name: str, **changes: Any) -> Torch:
    return Torch(name, outputs={"y": "y"}, **changes)


def load(root: Path, name: str, **changes: Any) -> TorchModel:
    signature = SIGNATURES[name]
    label = name.replace("_", "-")
    sample, settings = changes.pop("sample", None), changes.pop("settings", None)
    store(root, label, signature, sample=sample)
    return TorchModel.load(step(label, factory=lambda: Net(FUNCTIONS[name]), **changes), root, settings)


class _Models(dict[str, Model]):
    def __init__(self, root: Path, settings: TorchSettings | None = None) -> None:
        super().__init__()
        self._root, self._settings = root, settings

    def __missing__(self, name: str) -> Model:
        if name not in FUNCTIONS:
            pytest.skip("PyTorch has no text")
        self[name] = load(self._root, name, settings=self._settings)
        return self[name]


class TestTorchModel(ModelBehaviours):
    @pytest.fixture
    def models(self, tmp_path: Path) -> Mapping[str, Model]:
        return _Models(tmp_path)

    def test_no_message_quotes_a_value(self, models: Mapping[str, Model]) -> None:
        secret = 987_654_321
        with pytest.raises(ModelRejected) as rejected:
            models["picky"].run({"i": np.array([secret])})
        assert str(secret) not in str(rejected.value)
        assert rejected.value.__context__ is None


class TestTorchModelWithRing(ModelBehaviours):
    """Behaves as without, whatever the device."""

    @pytest.fixture(params=["cpu", "cuda"])
    def models(self, tmp_path: Path, request: pytest.FixtureRequest) -> Mapping[str, Model]:
        if request.param == "cuda" and not torch.cuda.is_available():
            pytest.skip("there is no CUDA device")
        device = "cuda:0" if request.param == "cuda" else "cpu"
        return _Models(tmp_path, TorchSettings(device, slots=2, captured=(1, 2, 4, 32, 64)))


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_ring_answers_as_a_plain_call_and_keeps_no_answer(tmp_path: Path, slots: int) -> None:
    """Batches of one shape share their memory, and what was answered before stays as it was."""
    model = load(tmp_path, "scores", settings=TorchSettings(slots=slots))
    random = np.random.default_rng(slots)
    asked = [random.normal(size=(rows, 3)).astype(np.float32) for rows in (1, 200, 199, 200, 64, 65, 200, 3)]
    answers = [model.run({"x": x})["y"] for x in asked]
    for x, answer in zip(asked, answers, strict=True):
        np.testing.assert_allclose(answer, x @ WEIGHTS, rtol=1e-4, atol=1e-5)


class Sigmoid(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 1)

    def forward(self, x: Any) -> Any:
        return torch.sigmoid(self.linear(x))


SIGNATURE = Signature({"x": Tensor("float32", (3,))}, {"y": Tensor("float32", (1,))})


def archive(root: Path, *, dynamic: bool = True, signature: Signature = SIGNATURE) -> tuple[Path, Any]:
    """A module, exported into a repository."""
    torch.manual_seed(3)
    module = Sigmoid().eval()
    shapes = ({0: torch.export.Dim("rows", min=1)},) if dynamic else None
    program = torch.export.export(module, (torch.zeros(4, 3),), dynamic_shapes=shapes)
    folder = root / "net" / "1"
    folder.mkdir(parents=True)
    torch.export.save(program, folder / "model.pt2")
    write_toml(folder, signature)
    return folder / "model.pt2", module


def rewritten(path: Path, change: Callable[[str, bytes], bytes], **added: bytes) -> None:
    """Change entries of an archive by their names below the first folder, and add some."""
    with zipfile.ZipFile(path) as old:
        entries = {name: change(name.partition("/")[2], old.read(name)) for name in old.namelist()}
    root = next(iter(entries)).partition("/")[0]
    with zipfile.ZipFile(path, "w") as new:
        for name, content in (entries | {f"{root}/{name}": content for name, content in added.items()}).items():
            new.writestr(name, content)


def described(
    change: Callable[[dict[str, Any]], object], file: str = "models/model.json"
) -> Callable[[str, bytes], bytes]:
    def changed(name: str, content: bytes) -> bytes:
        if name != file:
            return content
        document = json.loads(content)
        change(document)
        return json.dumps(document).encode()

    return changed


class _Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (str(self._marker),)


def _refused(path: Path, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        write_toml(path.parent, SIGNATURE)
    with pytest.raises(ConfigError, match=match):
        TorchModel.load(step("net"), path.parents[2])


def test_archive_scores_as_its_module_does_at_any_number_of_rows(tmp_path: Path) -> None:
    _, module = archive(tmp_path)
    model = TorchModel.load(step("net"), tmp_path)
    for rows in (1, 4, 33):
        x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
        np.testing.assert_allclose(model.run({"x": x})["y"], module(torch.from_numpy(x)).detach().numpy(), rtol=1e-6)


def test_l5_sample_inputs_that_run_code_are_never_unpickled(tmp_path: Path) -> None:
    """L5.2: every archive carries its sample inputs as a pickle, and `torch.export.load` unpickles them without limits."""
    path, _ = archive(tmp_path)
    marker = tmp_path / "the-pickle-ran"
    trap = io.BytesIO()
    torch.save((_Trap(marker),), trap)
    rewritten(path, lambda name, content: trap.getvalue() if "sample_inputs" in name else content)
    write_toml(path.parent, SIGNATURE)
    assert TorchModel.load(step("net"), tmp_path).run({"x": np.zeros((2, 3), np.float32)})["y"].shape == (2, 1)
    assert not marker.exists()
    torch.load(io.BytesIO(trap.getvalue()), weights_only=False)
    assert marker.exists()


def test_l5_pickled_weight_is_refused(tmp_path: Path) -> None:
    """L5.2."""
    path, _ = archive(tmp_path)
    config = "data/weights/model_weights_config.json"
    rewritten(path, described(lambda one: one["config"]["linear.bias"].update(use_pickle=True), config))
    _refused(path, "pickled tensor")


@pytest.mark.parametrize(
    "entry", ["data/weights/model.pt", "data/constants/custom_obj_0", "data/aotinductor/model/m.so", "extra/run.py"]
)
def test_l5_entry_that_may_run_is_refused(tmp_path: Path, entry: str) -> None:
    """L5.2."""
    path, _ = archive(tmp_path)
    rewritten(path, lambda _, content: content, **{entry: pickle.dumps(1)})
    _refused(path, "neither tensor nor description")


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "torch.os.system",
        "torch.ops.load_library",
        "torch.ops.aten.__class__",
        "torch.ops.aten.save.default",
        "torch.ops.aten.from_file.default",
        "torch.ops.prim.Print.default",
        "_operator.attrgetter",
        "#x:y",
    ],
)
def test_l5_operator_that_is_none_of_atens_is_refused(tmp_path: Path, target: str) -> None:
    """L5.2."""
    path, _ = archive(tmp_path)
    rewritten(path, described(lambda one: one["graph_module"]["graph"]["nodes"][0].update(target=target)))
    _refused(path, "no operator of ATen")


def _structure(kind: str, context: object) -> str:
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": kind, "context": context, "children_spec": [leaf]}])


@pytest.mark.parametrize(
    "structure",
    [
        lambda module: _structure(
            "collections.defaultdict",
            {"default_factory_module": module, "default_factory_name": "x", "dict_context": ["y"]},
        ),
        lambda module: _structure("builtins.dict", json.dumps([{"__enum__": True, "fqn": f"{module}:x", "name": "y"}])),
    ],
    ids=["factory", "enum"],
)
def test_l5_structure_that_imports_a_module_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, structure: Callable[[str], str]
) -> None:
    """L5.2: PyTorch imports whatever module the structure of inputs and outputs names."""
    path, _ = archive(tmp_path)
    marker, module = tmp_path / "the-module-ran", f"named_{path.stat().st_ino}"
    (tmp_path / f"{module}.py").write_text(f"open({str(marker)!r}, 'w').close()\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    rewritten(
        path,
        described(
            lambda one: one["graph_module"]["module_call_graph"][0]["signature"].update(out_spec=structure(module))
        ),
    )
    _refused(path, "something else than tuples")
    assert not marker.exists()


@pytest.mark.parametrize("expression", ["__import__('os').mkdir('x')", "().__class__", "open('x')"])
def test_l5_shape_that_is_a_program_is_refused(tmp_path: Path, expression: str) -> None:
    """L5.2."""
    path, _ = archive(tmp_path)
    rewritten(
        path,
        lambda name, content: content if name != "models/model.json" else _with_expression(content, expression),
    )
    _refused(path, "not arithmetic")


def _with_expression(content: bytes, expression: str) -> bytes:
    def replaced(one: Any) -> Any:
        if isinstance(one, dict):
            return {key: expression if key == "expr_str" else replaced(value) for key, value in one.items()}
        return [replaced(value) for value in one] if isinstance(one, list) else one

    return json.dumps(replaced(json.loads(content))).encode()


def test_l5_conditions_on_inputs_are_not_run(tmp_path: Path) -> None:
    """L5.2."""
    path, _ = archive(tmp_path)
    marker = tmp_path / "the-condition-ran"
    guard = f"__import__('os').mkdir({str(marker)!r}) or True"
    rewritten(path, described(lambda one: one.update(guards_code=[guard])))
    write_toml(path.parent, SIGNATURE)
    TorchModel.load(step("net"), tmp_path).run({"x": np.zeros((2, 3), np.float32)})
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"PK", pickle.dumps({}), b"\x80\x02}q\x00."])
def test_l5_anything_else_is_no_archive(tmp_path: Path, content: bytes) -> None:
    """L5.2."""
    path, _ = archive(tmp_path)
    path.write_bytes(content)
    _refused(path, "no archive of torch.export")


def test_fixed_number_of_rows_is_refused(tmp_path: Path) -> None:
    archive(tmp_path, dynamic=False)
    with pytest.raises(ConfigError, match="fixed number of rows"):
        TorchModel.load(step("net"), tmp_path)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"z": Tensor("float32", (3,))}, "has x"),
        ({"x": Tensor("float64", (3,))}, "it is float32"),
        ({"x": Tensor("float32", (4,))}, r"rows, 3\]"),
    ],
)
def test_declared_inputs_are_held_against_the_archive(tmp_path: Path, inputs: dict[str, Tensor], said: str) -> None:
    archive(tmp_path, signature=Signature(inputs, SIGNATURE.outputs))
    with pytest.raises(ConfigError, match=said):
        TorchModel.load(step("net"), tmp_path)


def test_weights_of_another_module_are_refused(tmp_path: Path) -> None:
    store(tmp_path, "net", SIGNATURE)
    with pytest.raises(ConfigError, match="let both be of one version"):
        TorchModel.load(step("net", factory=Sigmoid), tmp_path)


def test_half_precision_is_held_to_its_tolerance_on_the_sample(tmp_path: Path) -> None:
    sample = {"x": np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32) * 7}
    model = load(tmp_path / "loose", "scores", precision="bfloat16", tolerance=1.0, sample=sample)
    exact = sample["x"] @ WEIGHTS
    ours = model.run(sample)["y"]
    assert ours.dtype == np.float32
    assert 0 < np.abs(ours - exact).max() <= 1.0
    with pytest.raises(
        ConfigError, match=r"in bfloat16 differs from float32 by more than its tolerance of 0.0001: y by"
    ):
        load(tmp_path / "strict", "scores", precision="bfloat16", tolerance=1e-4, sample=sample)
    with pytest.raises(ConfigError, match=r"there is no .*sample\.npz"):
        load(tmp_path / "none", "scores", precision="float16")


@pytest.mark.parametrize(
    "sample", [{"z": np.zeros((2, 3), np.float32)}, {"x": np.zeros((2, 4), np.float32)}, {"x": np.array([None])}]
)
def test_sample_that_the_model_does_not_take_is_told_with_other_problems(
    tmp_path: Path, sample: Mapping[str, Any]
) -> None:
    """E1.4: it is a mistake in the repository, not of the worker."""
    with pytest.raises(ConfigError, match=r"sample\.npz cannot be scored"):
        load(tmp_path, "scores", precision="bfloat16", sample=sample)


def test_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    archive(tmp_path)
    device = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=r"sees .* GPUs"):
        TorchModel.load(step("net"), tmp_path, TorchSettings(device))


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (MemoryError(), ModelOutOfMemory),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes."),
            ModelOutOfMemory,
        ),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), ModelOutOfMemory),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), ModelFault),
        (IndexError("index 7 is out of bounds for dimension 0 with size 3"), ModelRejected),
    ],
)
def test_what_an_exception_means(error: Exception, meaning: type[Exception]) -> None:
    assert type(translated(error, "m@1")) is meaning


class _Event(BaseModel):
    id: str
    amount: float


class _Score(BaseModel):
    id: str
    y: float


def test_topology_runs_it(tmp_path: Path) -> None:
    _, module = archive(tmp_path)

    def to_matrix(columns: dict[str, Any]) -> dict[str, Any]:
        return {"x": np.repeat(columns["amount"][:, None], 3, axis=1).astype(np.float32)}

    topology = sm.Topology(
        "scores",
        source=sm.Source("events", schema=_Event, start="earliest"),
        steps=[
            sm.Transform(to_matrix, inputs=("amount",), outputs={"x": "f4[3]"}),
            sm.Torch("net", outputs={"y": "y"}),
        ],
        sink=sm.Sink("scored", schema=_Score, key="id"),
        dead_letters=sm.DeadLetterQueue("letters"),
    )
    driver = TopologyDriver(topology, repository=tmp_path)
    driver.send({"id": "a", "amount": 0.5})
    driver.settle()
    (prediction,) = driver.predictions()
    assert prediction.model == "net@1"
    assert prediction.value["y"] == pytest.approx(module(torch.full((1, 3), 0.5)).item(), rel=1e-6)


def test_a_trace_has_a_range_for_each_step_also_of_other_threads(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    check_trace(file)
    with traced(file) as ranges:

        def step() -> None:
            with ranges("decode"):
                torch.ones(8, 8) @ torch.ones(8, 8)

        with ranges("fraud"):
            torch.ones(3).sum()
        thread = threading.Thread(target=step, daemon=True)
        thread.start()
        thread.join()
    names = {event.get("name") for event in json.loads(file.read_text())["traceEvents"]}
    assert {"decode", "fraud", "aten::mm", "aten::sum"} <= names
    with pytest.raises(ConfigError, match="is no folder"):
        check_trace(tmp_path / "nowhere" / "trace.json")
