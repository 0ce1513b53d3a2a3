"""Opens ONNX Runtime sessions and reads their signatures; what can be wrong with a model file is found here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from streamml.adapters.models.onnx_bound import BoundSession, Device
from streamml.batch.column import Array
from streamml.errors import ConfigError
from streamml.ports.model import Signature, Tensor

_PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_DTYPES: Final = {
    "tensor(bool)": "bool",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(string)": "text",
    **{f"tensor({kind}int{bits})": f"{kind}int{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)},
}

_NODE: Final = re.compile(r"while running (?P<operator>\S+) node\. Name:'(?P<name>[^']*)'")

Scored = Callable[[Mapping[str, Array]], Sequence[Array]]


@dataclass(frozen=True, slots=True)
class OnnxSettings:
    """Where and how a model runs.

    Args:
        providers: ``cpu``, ``cuda``, ``tensorrt``; the first that can runs an operator, and the CPU runs what is left.
        threads: threads of one operator on the CPU. More workers scale better than more threads.
        spinning: whether those threads burn CPU while they wait for work. With one thread it changes nothing; with two
            and a batch each 20 ms, `loadtests/micro/bench_onnx.py` measured 104 % of a core instead of 2 %, and no
            batch that was faster by more than the noise.
        device: number of the GPU.
        bound: whether inputs are copied into buffers that are made once for each shape; ``None``: on a device they are. On the CPU
            it gains nothing.
        captured: numbers of rows that CUDA runs as one graph each, where inputs are bound and the model allows it.
        lengths: the only lengths of rows that are captured, for inputs that take any.
    """

    providers: tuple[str, ...] = ("cpu",)
    threads: int = 1
    spinning: bool = False
    device: int = 0
    bound: bool | None = None
    captured: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()

    @property
    def place(self) -> Device:
        """Where inputs are bound."""
        return ("cpu", 0) if self.providers[:1] == ("cpu",) else ("cuda", self.device)

    @property
    def binds(self) -> bool:
        """Whether they are."""
        return self.place[0] != "cpu" if self.bound is None else self.bound

    @property
    def graphs(self) -> bool:
        """Whether shapes are captured; on the CPU they are only bound as if they were, which is for tests."""
        return self.binds and bool(self.captured) and self.providers[:1] != ("tensorrt",)


def signature_of(path: Path) -> Signature:
    """The signature in an ONNX file, for those who write its ``model.toml``.

    Raises:
        ConfigError: with every reason why the file cannot be scored row by row.
    """
    signature, problems = read_signature(path, open_session(path, OnnxSettings()))
    if problems:
        raise ConfigError(problems)
    return signature


def onnxruntime() -> Any:
    """The module, which is only imported here, because it is optional and slow to import.

    Raises:
        ConfigError: it is not installed, or does not load.
    """
    try:
        return import_module("onnxruntime")
    except ModuleNotFoundError:
        raise ConfigError("ONNX Runtime is not installed: pip install streamml[cpu], or [gpu] for a GPU.") from None
    except ImportError as error:
        raise ConfigError(f"ONNX Runtime is installed but does not load ({error}); install it again.") from error


def open_session(path: Path, settings: OnnxSettings) -> Any:
    """An ``InferenceSession`` on exactly the providers that are set; there is no silent way back to the CPU.

    Raises:
        ConfigError: the runtime is not installed, a setting cannot be met, or the file cannot be loaded.
    """
    runtime = onnxruntime()
    problems = _settings_problems(settings, runtime.get_available_providers())
    if problems:
        raise ConfigError(problems)
    try:
        session = runtime.InferenceSession(
            str(path),
            _options(runtime, settings),
            providers=[
                (_PROVIDERS[name], _provider_options(name, settings)) for name in dict.fromkeys(settings.providers)
            ],
            enable_fallback=0,
            read_config_from_model=0,
        )
    except Exception as error:
        raise ConfigError(
            f"ONNX Runtime {runtime.__version__} cannot load {path}: {error}. Export the model again, for an operator "
            "set that this version knows; only ONNX is loaded, never a pickle."
        ) from error
    running = session.get_providers()
    absent = [name for name in settings.providers if _PROVIDERS[name] not in running]
    if absent:
        raise ConfigError([_does_not_start(name) for name in absent])
    return session


def scorer(
    session: Any,
    outputs: list[str],
    settings: OnnxSettings,
    captured: Callable[[Mapping[str, Array]], bool] | None = None,
) -> Scored:
    """What runs the session, and answers these outputs.

    Args:
        captured: as `BoundSession` takes it.
    """
    if not settings.binds:
        return lambda inputs: session.run(outputs, dict(inputs))
    return BoundSession(session, outputs, settings.place, onnxruntime(), captured).run


def node_in(message: str) -> str:
    """The node that a message of the running session names, for a sentence to go on with; empty: none."""
    node = _NODE.search(message)
    return f" in its {node['operator']} node {node['name']!r}" if node else ""


def _does_not_start(provider: str) -> str:
    return (
        f"Provider {provider!r} is in the installed ONNX Runtime but does not start; its log on stderr says which "
        "library is missing. Check the driver, CUDA and cuDNN, or set the providers to cpu."
    )


def _settings_problems(settings: OnnxSettings, available: list[str]) -> list[str]:
    problems = [
        f"{name!r} is no provider; choose among {', '.join(_PROVIDERS)}."
        for name in settings.providers
        if name not in _PROVIDERS
    ]
    problems += [
        f"Provider {name!r} is not in the installed ONNX Runtime, which has {', '.join(available)}; "
        "pip uninstall onnxruntime, then pip install streamml[gpu], or set the providers to cpu."
        for name in settings.providers
        if name in _PROVIDERS and _PROVIDERS[name] not in available
    ]
    if not settings.providers:
        problems.append(f"There is no provider to run the model on; choose among {', '.join(_PROVIDERS)}.")
    if settings.threads < 1:
        problems.append(f"threads is {settings.threads}; a model needs at least 1.")
    if settings.device < 0:
        problems.append(f"device is {settings.device}; devices are numbered from 0.")
    return problems


def _options(runtime: Any, settings: OnnxSettings) -> Any:
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # Below "fatal" the session writes tensor values to stderr, and a warning per batch for a shape that a converter got
    # wrong; what matters comes back as an exception.
    options.log_severity_level = 4
    spinning = "1" if settings.spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _provider_options(name: str, settings: OnnxSettings) -> dict[str, str]:
    if name == "cpu":
        return {}
    options = {"device_id": str(settings.device)}
    if name == "cuda":
        # With TF32, CUDA's default, a replay on another kind of device would give other predictions.
        options |= {"use_tf32": "0"}
        if settings.graphs:
            options |= {"enable_cuda_graph": "1"}
    return options


def read_signature(path: Path, session: Any) -> tuple[Signature, list[str]]:
    """The session's signature as far as it is usable, and one sentence for each thing in it that is not."""
    problems = []
    sides: dict[str, dict[str, Tensor]] = {"Input": {}, "Output": {}}
    for side, nodes in (("Input", session.get_inputs()), ("Output", session.get_outputs())):
        for node in nodes:
            problem = _node_problem(node, fixed_rows_matter=side == "Input")
            if problem:
                problems.append(f"{side} {node.name!r} of {path} {problem}.")
            else:
                shape = tuple(size if isinstance(size, int) else None for size in node.shape[1:])
                sides[side][node.name] = Tensor(_DTYPES[node.type], shape)
        if not nodes:
            problems.append(f"{path} has no {side.lower()}; a model takes rows and answers rows.")
    return Signature(sides["Input"], sides["Output"]), problems


def _node_problem(node: Any, *, fixed_rows_matter: bool) -> str | None:
    if not node.name:
        return "has no name; export the model with named inputs and outputs"
    if "map(" in node.type:
        remedy = "export the classifier with zipmap=False (skl2onnx: options={'zipmap': False})"
        return f"is a {node.type}, one dict per row; {remedy}"
    if node.type not in _DTYPES:
        return f"is a {node.type}, which has no numpy type; export the model with one of {', '.join(_DTYPES)}"
    if not node.shape:
        return "has no rows: its shape in the file is empty, or not known; export the model with the shape [rows, ...]"
    # Converters get the first dimension of outputs wrong (LightGBM: label [1]), so the rows of outputs are counted in
    # each batch instead.
    if fixed_rows_matter and isinstance(node.shape[0], int):
        return (
            f"takes exactly {node.shape[0]} rows at a time; export the model with a dynamic first dimension (torch: "
            f"dynamic_axes={{{node.name!r}: {{0: 'rows'}}}}, skl2onnx and onnxmltools: None as the first size)"
        )
    return None
