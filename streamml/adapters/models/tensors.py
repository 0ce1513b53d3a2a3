"""Holds what goes into a model, and what comes out of it, to the model's signature.

The checks cost a few microseconds per batch, whatever its size; only text is looked at value by value, because
ONNX Runtime would score ``None`` as the word "None".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from streamml.batch.column import Array
from streamml.errors import ModelFault
from streamml.ports.model import Signature, Tensor

NUMPY: Final[dict[str, np.dtype[Any]]] = {
    name: np.dtype(name)
    for name in (
        *("bool", "float16", "float32", "float64"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
} | {"text": np.dtype(object)}
"""The numpy type of each type name that a `Tensor` may carry."""


def check_inputs(model: str, signature: Signature, inputs: Mapping[str, Array]) -> int:
    """The number of rows in ``inputs``, which are exactly what the signature says.

    Args:
        model: what messages call the model.

    Raises:
        ModelFault: a name, type, shape or number of rows is wrong; no message holds a value.
    """
    if inputs.keys() != signature.inputs.keys():
        raise ModelFault(f"Model {model} takes the inputs {_named(signature.inputs)}, but got {_named(inputs)}.")
    first = next(iter(inputs))
    rows = len(inputs[first]) if isinstance(inputs[first], np.ndarray) and inputs[first].ndim else 0
    for name, tensor in signature.inputs.items():
        problem = _problem_with(inputs[name], tensor, rows)
        if problem is not None:
            raise ModelFault(f"Input {name!r} of model {model} {problem}.")
    if rows == 0:
        raise ModelFault(f"Input {first!r} of model {model} has no rows; a batch has at least one.")
    return rows


def check_outputs(model: str, signature: Signature, outputs: Mapping[str, Array], rows: int) -> None:
    """Return if ``outputs`` are exactly what the signature says, for ``rows`` rows.

    Raises:
        ModelFault: a name, type, shape or number of rows is wrong; no message holds a value.
    """
    if not isinstance(outputs, Mapping):
        raise ModelFault(f"Model {model} answered a {type(outputs).__name__} instead of arrays by output name.")
    if outputs.keys() != signature.outputs.keys():
        raise ModelFault(
            f"Model {model} declares the outputs {_named(signature.outputs)}, but answered {_named(outputs)}."
        )
    for name, tensor in signature.outputs.items():
        problem = _problem_with(outputs[name], tensor, rows)
        if problem is not None:
            raise ModelFault(f"Output {name!r} of model {model} {problem}; correct the model or its signature.")


def signature_faults(signature: Signature) -> Iterator[str]:
    """What makes a signature unusable, each as the end of a sentence."""
    for side, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        if not tensors:
            yield f"has no {side}"
        for name, tensor in tensors.items():
            if not name:
                yield f"has an {side} without a name"
            if tensor.dtype not in NUMPY:
                yield f"has the {side} {name!r} of dtype {tensor.dtype!r}, which is none of {', '.join(NUMPY)}"


def _named(names: Mapping[str, object]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _problem_with(array: object, tensor: Tensor, rows: int) -> str | None:
    if not isinstance(array, np.ndarray):
        return f"is a {type(array).__name__} instead of a numpy array {tensor}"
    if isinstance(array, np.ma.MaskedArray):
        return f"may hold nulls (it is a masked array) instead of {tensor}; declare what stands in for a null"
    # np.dtype equality knows byte order: ONNX Runtime would read big-endian values as garbage.
    if array.dtype != NUMPY[tensor.dtype] or not _fits(array.shape[1:], tensor.shape) or not array.ndim:
        return f"is {_described(array)} instead of {tensor}"
    if len(array) != rows:
        return f"has {len(array)} rows instead of {rows}"
    return _text_problem(array) if tensor.dtype == "text" else None


def _fits(shape: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    return shape == declared or (
        len(shape) == len(declared) and all(want in (None, size) for size, want in zip(shape, declared, strict=True))
    )


def _text_problem(array: Array) -> str | None:
    kinds = set(map(type, array.ravel().tolist()))
    strange = sorted(kind.__name__ for kind in kinds if not issubclass(kind, str))
    return f"holds {', '.join(strange)} instead of text only" if strange else None


def _described(array: Array) -> str:
    name = str(array.dtype) if array.dtype != object else "object"
    return f"{name}[{', '.join(map(str, array.shape))}]"
