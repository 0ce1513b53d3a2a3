"""Scores rows with ONNX Runtime, on CPU or GPU.

Only ONNX protobuf is ever loaded: data that ONNX Runtime interprets, unlike a pickle, which is a program that runs on
loading. ``InferenceSession`` is the one call that opens a model, it is told to take no other format, custom operator
libraries are not registered, and files outside the model's folder are refused before it is made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from streamml.adapters.models.onnx_graphs import open_scorer
from streamml.adapters.models.onnx_session import OnnxSettings, Scored, node_in
from streamml.adapters.models.repository import ModelFiles, signature_problems
from streamml.adapters.models.tensors import check_inputs, check_outputs
from streamml.batch.column import Array
from streamml.errors import ConfigError, ModelFault, ModelOutOfMemory, ModelRejected, StreamMLError
from streamml.ports.model import Signature

_OUT_OF_MEMORY: Final = re.compile(r"(?i)failed to allocate memory|out of memory|bad.alloc|ALLOC(ATION)?_FAILED")
_DEVICE_BROKEN: Final = re.compile(r"(?i)(CUDA|CUDNN|CUBLAS|CUFFT|CURAND|TensorRT)\w* (failure|error|EP)")


class OnnxModel:
    """The port `Model` over one ONNX Runtime session. It holds the session until `close`."""

    def __init__(self, name: str, version: str, signature: Signature, scored: Scored) -> None:
        """
        Args:
            scored: the signature's outputs for its inputs, in order.
        """
        self.name: Final = name
        self.version: Final = version
        self._label = f"{name}@{version}"
        self.signature: Final = signature
        self._outputs = list(signature.outputs)
        self._scored: Scored | None = scored

    @classmethod
    def load(cls, files: ModelFiles, settings: OnnxSettings | None = None) -> OnnxModel:
        """Open a session on the files of a model.

        Raises:
            ConfigError: the runtime, a provider or the model is not usable; with every problem that could be found.
        """
        model = cls.from_file(files.model, files.name, files.version, settings)
        problems = list(signature_problems(files, model.signature))
        if problems:
            raise ConfigError(problems)
        return model

    @classmethod
    def from_file(cls, path: Path, name: str, version: str, settings: OnnxSettings | None = None) -> OnnxModel:
        """Open a session on a file that is in no repository.

        Raises:
            ConfigError: as `load`.
        """
        signature, problems, scored = open_scorer(path, f"{name}@{version}", settings or OnnxSettings())
        if problems:
            raise ConfigError(problems)
        return cls(name, version, signature, scored)

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        scored = self._scored
        if scored is None:
            raise ModelFault(f"Model {self._label} was closed; load it again before scoring.")
        rows = check_inputs(self._label, self.signature, inputs)
        try:
            values = scored(inputs)
        except Exception as error:  # noqa: BLE001  raised below
            failure = translated(error, self._label)
        else:
            outputs = dict(zip(self._outputs, values, strict=True))
            check_outputs(self._label, self.signature, outputs, rows)
            return outputs
        # Outside of the handler, so that the runtime's own message, which quotes values, is not chained to it.
        raise failure

    def close(self) -> None:
        self._scored = None


def translated(error: Exception, model: str) -> StreamMLError:
    """What an exception of a running session means for the rows in it.

    The runtime's message is read, but not passed on: it quotes values, as in "idx=7 must be within [-3,2]".
    """
    message = str(error)
    where = node_in(message)
    kind = type(error).__name__
    if isinstance(error, UnicodeError):
        return ModelRejected(f"Model {model} was given, or answered, text that is not valid Unicode.")
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(message):
        return ModelOutOfMemory(f"Model {model} ran out of memory{where}; a smaller batch may fit.")
    if kind == "EPFail" or _DEVICE_BROKEN.search(message):
        return ModelFault(
            f"The device failed under model {model}{where} ({kind}); look at the device's log, then restart."
        )
    if where or kind == "InvalidArgument":
        return ModelRejected(f"Model {model} refused these rows{where} ({kind}).")
    return ModelFault(f"Model {model} cannot be run ({kind}); check that its file fits the installed ONNX Runtime.")
