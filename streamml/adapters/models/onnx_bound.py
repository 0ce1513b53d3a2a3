"""Runs an ONNX Runtime session through input buffers on its device that are made once for each shape.

Without them each batch allocates device memory for its inputs and copies through a staging buffer of the runtime's choice.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streamml.batch.column import Array

_MOST_SHAPES: Final = 64

_MEMORY: Final = {"cuda": "Cuda", "cpu": "Cpu"}

Device = tuple[str, int]
"""Kind (``cuda`` or ``cpu``) and number."""
Shapes = tuple[tuple[str, tuple[int, ...], str], ...]


def places(session: Any, device: Device) -> dict[str, Device]:
    """Where each input is read: on the device, or on the CPU by what the device has no operator for."""
    memory = zip(session.get_inputs(), session.get_input_memory_infos(), strict=True)
    return {node.name: device if info.name == _MEMORY[device[0]] else ("cpu", 0) for node, info in memory}


@dataclass(frozen=True, slots=True)
class _Buffers:
    """Inputs of one shape where they are read, and the binding that says so to the session."""

    inputs: Mapping[str, Any]
    binding: Any


class BoundSession:
    """A session's `run` by I/O binding. Threads take turns, as they share the buffers.

    Outputs are left to the runtime's own arena, since their shape may depend on values. Text, batches without rows, and what comes
    when 64 shapes have buffers already, go the plain way: a ladder of batch sizes (``Batching(ladder=)``) keeps shapes few.
    """

    def __init__(self, session: Any, outputs: Sequence[str], device: Device, make_value: Any) -> None:
        """
        Args:
            outputs: names, in the order of the answer.
            device: where they are answered.
            make_value: ``OrtValue.ortvalue_from_shape_and_type``.
        """
        self._session = session
        self._outputs = list(outputs)
        self._device = device
        # A binding copies what lies elsewhere when it is made, and never again.
        self._places = places(session, device)
        self._make_value = make_value
        self._buffers: dict[Shapes, _Buffers] = {}
        self._turn = threading.Lock()

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs, in order; arrays of their own, that a later batch does not change."""
        with self._turn:
            buffers = self._buffers_for(inputs)
            if buffers is None:
                answer: list[Array] = self._session.run(self._outputs, dict(inputs))
                return answer
            for name, value in buffers.inputs.items():
                value.update_inplace(np.ascontiguousarray(inputs[name]))
            # Else the outputs would have to be as large as those of the shape's last batch, which lie there yet.
            for name in self._outputs:
                buffers.binding.bind_output(name, *self._device)
            self._session.run_with_iobinding(buffers.binding)
            copies: list[Array] = buffers.binding.copy_outputs_to_cpu()
            return copies

    def _buffers_for(self, inputs: Mapping[str, Array]) -> _Buffers | None:
        if any(column.dtype.hasobject or not column.size for column in inputs.values()):
            return None
        shapes = tuple((name, column.shape, column.dtype.str) for name, column in sorted(inputs.items()))
        if shapes not in self._buffers and len(self._buffers) < _MOST_SHAPES:
            self._buffers[shapes] = self._made(inputs)
        return self._buffers.get(shapes)

    def _made(self, inputs: Mapping[str, Array]) -> _Buffers:
        values = {
            name: self._make_value(list(column.shape), column.dtype.type, *self._places[name])
            for name, column in inputs.items()
        }
        binding = self._session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        return _Buffers(values, binding)
