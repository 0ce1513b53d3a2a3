"""A model that fails on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from streamml.batch.column import Array
from streamml.errors import ModelOutOfMemory, ModelRejected
from streamml.ports.model import Model


class FailingModel:
    """The port `Model` around another model: some rows it refuses, and batches that are too large for its memory."""

    def __init__(self, model: Model, refuses: Callable[[bytes], bool], most_rows: int | None) -> None:
        """
        Args:
            refuses: whether a batch fails that holds a row of these bytes.
            most_rows: rows that its memory is enough for; ``None``: any number.
        """
        self._model: Final = model
        self.name: Final = model.name
        self.version: Final = model.version
        self.signature: Final = model.signature
        self._refuses = refuses
        self._most_rows = most_rows

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """See `Model.run`."""
        rows = len(next(iter(inputs.values())))
        if self._most_rows is not None and rows > self._most_rows:
            raise ModelOutOfMemory(f"{rows} rows are too many for this model's memory, on purpose.")
        columns = [inputs[name] for name in sorted(inputs)]
        if any(self._refuses(b"".join(_bytes(column[row]) for column in columns)) for row in range(rows)):
            raise ModelRejected("The model refuses one of these rows, on purpose.")
        return self._model.run(inputs)

    def close(self) -> None:
        self._model.close()


def _bytes(value: object) -> bytes:
    return value.tobytes() if isinstance(value, (np.ndarray, np.generic)) else repr(value).encode()
