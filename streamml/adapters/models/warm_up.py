"""Runs a model before its first real batch, and measures what a batch costs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from statistics import median

import numpy as np

from streamml.adapters.models.tensors import NUMPY
from streamml.batch.column import Array
from streamml.errors import ModelOutOfMemory
from streamml.ports.model import Model, Tensor


def warm_up(
    model: Model,
    sizes: Iterable[int],
    *,
    sample: Mapping[str, Array] | None = None,
    repeats: int = 5,
    length: int = 1,
) -> dict[int, float]:
    """Median seconds that one batch takes, by number of rows, for each of ``sizes`` that fits into memory.

    Each size is run once unmeasured, then ``repeats`` times. Memory is taken here and not under load, and a model whose
    outputs are not what it declares is found out before it meets a record.

    Args:
        sizes: numbers of rows, each at least 1.
        sample: input arrays of any number of rows ≥ 1, repeated up to each size; ``None``: zeros and empty text.
        repeats: measured runs per size.
        length: elements of zeros where a dimension has any length; few make a model of sequences look cheaper than it is.

    Raises:
        ModelOutOfMemory: not even the smallest size fits.
        ModelRejected: the model refuses the sample.
        ModelFault: the model is broken.
    """
    seconds: dict[int, float] = {}
    for size in sorted(set(sizes)):
        inputs = _inputs(model, size, sample, length)
        try:
            model.run(inputs)
            seconds[size] = median(_seconds(model, inputs) for _ in range(repeats))
        except ModelOutOfMemory:
            if not seconds:
                raise
            break
    return seconds


def _seconds(model: Model, inputs: Mapping[str, Array]) -> float:
    start = time.perf_counter()
    model.run(inputs)
    return time.perf_counter() - start


def _inputs(model: Model, rows: int, sample: Mapping[str, Array] | None, length: int) -> dict[str, Array]:
    if sample is None:
        return {name: _blank(tensor, rows, length) for name, tensor in model.signature.inputs.items()}
    return {name: column[np.arange(rows) % len(column)] for name, column in sample.items()}


def _blank(tensor: Tensor, rows: int, length: int) -> Array:
    shape = (rows, *(length if size is None else size for size in tensor.shape))
    return np.full(shape, "" if tensor.dtype == "text" else 0, dtype=NUMPY[tensor.dtype])
