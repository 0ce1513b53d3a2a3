"""A model made of a plain function, for tests and for trying out a topology without a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from streamml.adapters.models.tensors import check_inputs, check_outputs, signature_faults
from streamml.batch.column import Array
from streamml.errors import ConfigError, ModelFault, ModelOutOfMemory, ModelRejected, StreamMLError
from streamml.ports.model import Signature

ModelFunction = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class FunctionModel:
    """The port `Model` over a function from input columns to output columns.

    Args:
        name: what predictions call the model.
        version: what predictions call this version of it.
        signature: inputs and outputs; each call of ``function`` is held to it as a model file is.
        function: gets arrays ``[n, *row shape]`` by input name and returns the same by output name. An exception means
            that it refuses these rows, `MemoryError` that the batch is too large, and a `StreamMLError` what it says.

    Raises:
        ConfigError: name, version or signature is none that a model file could have.
    """

    def __init__(
        self,
        name: str,
        version: str,
        signature: Signature,
        function: ModelFunction,
    ) -> None:
        faults = [
            *signature_faults(signature),
            *(["has no name"] if not name else []),
            *(["has no version"] if not version else []),
        ]
        if faults:
            raise ConfigError([f"The model {name!r} {fault}; declare it as a model file would." for fault in faults])
        self.name: Final = name
        self.version: Final = version
        self._label = f"{name}@{version}"
        self.signature: Final = signature
        self._function: ModelFunction | None = function

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if self._function is None:
            raise ModelFault(f"Model {self._label} was closed; make it again before scoring.")
        rows = check_inputs(self._label, self.signature, inputs)
        try:
            outputs = self._function(inputs)
        except StreamMLError:
            raise
        except MemoryError as error:
            raise ModelOutOfMemory(f"Model {self._label} ran out of memory; a smaller batch may fit.") from error
        except Exception as error:
            # Its message may quote values, so only the traceback has it.
            raise ModelRejected(f"Model {self._label} refused these rows ({type(error).__name__}).") from error
        check_outputs(self._label, self.signature, outputs, rows)
        return outputs

    def close(self) -> None:
        self._function = None
