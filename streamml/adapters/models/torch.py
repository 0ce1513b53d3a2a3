"""Scores rows with PyTorch, on CPU or GPU.

What is loaded is data: an archive of ``torch.export`` from which everything that could run was refused or taken out
(`pt2_archive`), or the weights of a safetensors file for a module that the user's own code makes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np

from streamml.adapters.models.model_toml import PT2, SAFETENSORS, SAMPLE
from streamml.adapters.models.pt2_archive import without_code
from streamml.adapters.models.repository import ModelFiles, find
from streamml.adapters.models.tensors import check_inputs, check_outputs
from streamml.adapters.models.torch_ring import Ring
from streamml.batch.column import Array
from streamml.errors import ConfigError, ModelFault, ModelOutOfMemory, ModelRejected, StreamMLError
from streamml.ports.model import Signature, Tensor
from streamml.topology.model_steps import Torch

_LOG: Final = logging.getLogger("streamml.models")
_OUT_OF_MEMORY: Final = re.compile(r"(?i)out of memory|can't allocate memory|not enough memory|bad.alloc|ALLOC_FAILED")
_DEVICE_BROKEN: Final = re.compile(r"(?i)CUDA error|CUBLAS_STATUS|CUDNN_STATUS|device-side assert")


@dataclass(frozen=True, slots=True)
class TorchSettings:
    """Where a model runs.

    Args:
        device: as PyTorch spells it: ``cpu``, ``cuda:0``.
        threads: threads of one operator on the CPU, for all models of the process.
        captured: numbers of rows that a GPU runs as one graph each.
        slots: parts of a batch that are copied and computed at a time (`torch_ring`); 0: batches are not cut, and their
            memory is not kept. ``None``: 2 on a GPU, 0 on a CPU.
    """

    device: str = "cpu"
    threads: int = 1
    captured: tuple[int, ...] = ()
    slots: int | None = None

    @property
    def ring(self) -> int:
        """The number of slots."""
        return (0 if self.device == "cpu" else 2) if self.slots is None else self.slots


class TorchModel:
    """The port `Model` over a function from tensors to tensors on a device."""

    def __init__(
        self,
        name: str,
        version: str,
        signature: Signature,
        function: Callable[..., Any],
        settings: TorchSettings,
        precision: str = "float32",
    ) -> None:
        """
        Args:
            function: takes the inputs in the signature's order; returns a tensor, a sequence of them in the order of
                the outputs, or a mapping by their names.
            precision: see `streamml.topology.model_steps.Torch`.
        """
        self.name: Final = name
        self.version: Final = version
        self._label = f"{name}@{version}"
        self.signature: Final = signature
        self._function: Callable[..., Any] | None = function
        self._device = settings.device
        self._precision = precision
        self._ring = (
            Ring(self._computed, settings.device, self._label, slots=settings.ring, captured=settings.captured)
            if settings.ring
            else None
        )

    @classmethod
    def load(cls, step: Torch, root: Path, settings: TorchSettings | None = None) -> TorchModel:
        """Load the model of a step onto its device, and hold its precision to its tolerance.

        Args:
            root: the model repository.

        Raises:
            ConfigError: PyTorch, the device or the model is not usable; with every problem that could be found.
        """
        settings = settings or TorchSettings()
        files = find(root, step.name, step.version, file=PT2 if step.factory is None else SAFETENSORS)
        torch = _runtime()
        problems = list(_device_problems(torch, settings.device)) + list(_text_problems(files))
        if problems:
            raise ConfigError(problems)
        torch.set_num_threads(settings.threads)
        module = _exported(torch, files) if step.factory is None else _built(files, step.factory)
        module = module.to(settings.device).requires_grad_(False)
        function = torch.compile(module, dynamic=True) if step.compile else module
        model = cls(files.name, files.version, files.signature, function, settings, step.precision)
        if step.precision != "float32":
            exact = cls(files.name, files.version, files.signature, module, TorchSettings(settings.device))
            _hold_to(step, model, exact, files)
        return model

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if self._function is None:
            raise ModelFault(f"Model {self._label} was closed; load it again before scoring.")
        rows = check_inputs(self._label, self.signature, inputs)
        try:
            outputs = self._scored(inputs)
        except StreamMLError:
            raise
        except Exception as error:  # noqa: BLE001  raised below
            failure = translated(error, self._label)
        else:
            check_outputs(self._label, self.signature, outputs, rows)
            return outputs
        # Outside of the handler, so that PyTorch's own message, which may quote values, is not chained to it.
        raise failure

    def close(self) -> None:
        self._function = self._ring = None

    def _scored(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import torch

        columns = [inputs[name] for name in self.signature.inputs]
        with torch.inference_mode():
            if self._ring is not None:
                answers = self._ring.run(columns)
            else:
                tensors = [self._to_device(torch, column) for column in columns]
                answers = [answer.cpu().numpy() for answer in self._computed(*tensors)]
        return dict(zip(self.signature.outputs, answers, strict=True))

    def _computed(self, *tensors: Any) -> list[Any]:
        """The outputs in the signature's order, on the device; floating ones are of the declared type where the precision is reduced."""
        import torch

        assert self._function is not None
        with self._arithmetic(torch):
            named = _named(self._label, self._function(*tensors), self.signature)
        return [self._as_declared(torch, named[name], tensor) for name, tensor in self.signature.outputs.items()]

    def _arithmetic(self, torch: Any) -> AbstractContextManager[object]:
        if self._precision == "float32":
            return nullcontext()
        # A cache of cast weights would be freed under a captured graph.
        context: AbstractContextManager[object] = torch.autocast(
            self._device.partition(":")[0], dtype=getattr(torch, self._precision), cache_enabled=not self._ring
        )
        return context

    def _to_device(self, torch: Any, column: Array) -> Any:
        # PyTorch warns of memory that it may not write to, and takes no negative strides.
        tensor = torch.from_numpy(np.array(column, order="C"))
        return tensor if self._device == "cpu" else tensor.pin_memory().to(self._device, non_blocking=True)

    def _as_declared(self, torch: Any, value: Any, wanted: Tensor) -> Any:
        if self._precision == "float32" or not value.dtype.is_floating_point:
            return value
        return value.to(getattr(torch, wanted.dtype))


def _named(label: str, answer: Any, signature: Signature) -> Mapping[str, Any]:
    if isinstance(answer, Mapping):
        if answer.keys() != signature.outputs.keys():
            raise ModelFault(
                f"Model {label} declares the outputs {', '.join(signature.outputs)}, but answered {', '.join(answer)}."
            )
        return answer
    values: Sequence[Any] = answer if isinstance(answer, Sequence) else [answer]
    if len(values) != len(signature.outputs):
        raise ModelFault(f"Model {label} declares {len(signature.outputs)} outputs, but answered {len(values)}.")
    return dict(zip(signature.outputs, values, strict=True))


def translated(error: Exception, model: str) -> StreamMLError:
    """What an exception of a running model means for the rows in it. PyTorch's message is read, but not passed on."""
    message, kind = str(error), type(error).__name__
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or _OUT_OF_MEMORY.search(message):
        return ModelOutOfMemory(f"Model {model} ran out of memory; a smaller batch may fit.")
    if _DEVICE_BROKEN.search(message):
        return ModelFault(f"The device failed under model {model} ({kind}); look at the device's log, then restart.")
    return ModelRejected(f"Model {model} refused these rows ({kind}).")


def _runtime() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ConfigError(f"PyTorch does not load ({error}): pip install streamml[torch].") from error
    return torch


def _device_problems(torch: Any, device: str) -> Iterator[str]:
    if device.startswith("cuda"):
        number, count = int(device.partition(":")[2] or 0), torch.cuda.device_count()
        if number >= count:
            yield (
                f"PyTorch {torch.__version__} sees {count} GPUs, and the model is to run on number {number}; check the driver, "
                "or set model.providers to cpu."
            )


def _text_problems(files: ModelFiles) -> Iterator[str]:
    for name, tensor in (*files.signature.inputs.items(), *files.signature.outputs.items()):
        if tensor.dtype == "text":
            yield f"{files.folder / 'model.toml'} declares {name!r} as text, which PyTorch has not; tokenize in a Transform."


def _exported(torch: Any, files: ModelFiles) -> Any:
    try:
        program = torch.export.load(without_code(files.model))
    except Exception as error:
        raise ConfigError(
            f"PyTorch {torch.__version__} cannot load {files.model} ({type(error).__name__}: {error}); export it again with "
            "this version."
        ) from error
    problems = list(_differences(program, files))
    if problems:
        raise ConfigError(problems)
    return program.module(check_guards=False)


def _differences(program: Any, files: ModelFiles) -> Iterator[str]:
    """Where ``model.toml`` and the archive's inputs differ; outputs have no names in it, and are held to each batch."""
    path = files.folder / "model.toml"
    found = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    names = [str(name) for name in program.graph_signature.user_inputs]
    if list(files.signature.inputs) != names:
        yield (
            f"{path} declares the inputs {', '.join(files.signature.inputs)}, but {files.model.name} has {', '.join(names)}; "
            "declare them all, in the file's order."
        )
        return
    for name, tensor in files.signature.inputs.items():
        value = found[name]
        if not value.ndim or isinstance(value.shape[0], int):
            yield f"Input {name!r} of {files.model} takes a fixed number of rows; export it with a dynamic first dimension."
            continue
        shape = tuple(size if isinstance(size, int) else None for size in value.shape[1:])
        actual = Tensor(str(value.dtype).removeprefix("torch."), shape)
        if actual != tensor:
            yield f"{path} declares [signature.inputs.{name}] as {tensor}, but in {files.model.name} it is {actual}; correct it."


def _built(files: ModelFiles, factory: Callable[[], object]) -> Any:
    from safetensors.torch import load_file

    try:
        module: Any = factory()
        module.load_state_dict(load_file(files.model), strict=True)
    except Exception as error:
        raise ConfigError(
            f"{files.model} does not load into what the factory of model {files.name} makes ({type(error).__name__}: {error}); "
            "let both be of one version."
        ) from error
    return module.eval()


def _hold_to(step: Torch, model: TorchModel, exact: TorchModel, files: ModelFiles) -> None:
    path = files.folder / SAMPLE
    if not path.is_file():
        raise ConfigError(
            f"Model {files.name} is to run in another precision than float32, and there is no {path} to check it on; save "
            "some rows there by numpy.savez, arrays by input name, and write model.toml anew."
        )
    try:
        with np.load(path, allow_pickle=False) as stored:
            sample = {name: stored[name] for name in stored.files}
        ours, theirs = model.run(sample), exact.run(sample)
    except (StreamMLError, OSError, ValueError, BadZipFile) as error:
        raise ConfigError(
            f"{path} cannot be scored to check the precision of model {files.name} ({error}); save some rows there by "
            "numpy.savez, arrays by input name, and write model.toml anew."
        ) from error
    differences = {
        name: float(np.max(np.abs(ours[name].astype(np.float64) - theirs[name].astype(np.float64)), initial=0.0))
        for name in theirs
    }
    told = ", ".join(f"{name} by {difference:.3g}" for name, difference in differences.items())
    _LOG.info("Model %s@%s differs from float32 at most: %s.", files.name, files.version, told)
    wrong = {name: one for name, one in differences.items() if not one <= step.tolerance}
    if wrong:
        raise ConfigError(
            f"Model {files.name}@{files.version} in {step.precision} differs from float32 by more than its tolerance of "
            f"{step.tolerance}: {told}, on {path}. Take a larger tolerance, or float32."
        )
