"""Runs an ONNX Runtime session through buffers that are made once for each shape, and replays graphs of those that are captured.

Without them each batch allocates device memory for its inputs and copies through a staging buffer of the runtime's choice. A session
that was opened for CUDA graphs gets a number with each run (``gpu_graph_id``): a new one captures, a known one replays, -1 does neither.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from streamml.batch.column import Array

_MOST_SHAPES: Final = 64
_MEMORY: Final = {"cuda": "Cuda", "cpu": "Cpu"}
_NO_GRAPH: Final = -1
# Kernels of a replay are those of the capture; another choice of kernels may add up in another order.
_RELATIVE: Final = 1e-3
_ABSOLUTE: Final = 1e-5

Device = tuple[str, int]
"""Kind (``cuda`` or ``cpu``) and number."""
Shapes = tuple[tuple[str, tuple[int, ...], str], ...]


class ReplayDiffersError(Exception):
    """A graph does not answer as its session does."""


class NotCapturedError(Exception):
    """A shape cannot be captured, for the cause that this has. The session is not to be used any more."""


def places(nodes: Sequence[Any], memory: Sequence[Any], device: Device) -> dict[str, Device]:
    """Where each input is read, or output written: on the device, or on the CPU by what the device has no operator for.

    Args:
        nodes: a session's inputs or outputs.
        memory: what the session says of them.
    """
    pairs = zip(nodes, memory, strict=True)
    return {node.name: device if info.name == _MEMORY[device[0]] else ("cpu", 0) for node, info in pairs}


@dataclass(frozen=True, slots=True)
class _Buffers:
    """Inputs of one shape where they are read, the binding that says so to the session, the number of its graph, and the options of its runs."""

    inputs: Mapping[str, Any]
    binding: Any
    options: Any
    graph: int = _NO_GRAPH


class BoundSession:
    """A session's `run` by I/O binding. Threads take turns, as they share the buffers.

    Outputs are left to the runtime's own arena, since their shape may depend on values; those of a captured shape stay where its
    first run put them. Text, batches without rows, and what comes when 64 shapes have buffers already, go the plain way: a
    ladder of batch sizes (``Batching(ladder=)``) keeps shapes few.
    """

    def __init__(
        self,
        session: Any,
        outputs: Sequence[str],
        device: Device,
        runtime: Any,
        captured: Callable[[Mapping[str, Array]], bool] | None = None,
    ) -> None:
        """
        Args:
            outputs: names, in the order of the answer.
            device: where they are answered.
            runtime: the module ``onnxruntime``.
            captured: whether the shape of these inputs is captured; ``None``: the session was opened without graphs.
        """
        self._session = session
        self._outputs = list(outputs)
        self._device = device
        # A binding copies what lies elsewhere when it is made, and never again.
        self._places = places(session.get_inputs(), session.get_input_memory_infos(), device)
        self._runtime = runtime
        self._graphs = captured is not None
        self._captured: Callable[[Mapping[str, Array]], bool] = captured or _never
        self._plain = self._options(_NO_GRAPH)
        self._buffers: dict[Shapes, _Buffers] = {}
        self._turn = threading.Lock()

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs, in order; arrays of their own, that a later batch does not change.

        Raises:
            NotCapturedError: the shape was to be captured, and cannot be.
        """
        with self._turn:
            try:
                return self._answer(inputs)
            except Exception:
                # It ends the warming up: a later capture would have other models beside it, which allocate.
                self._captured = _never
                raise

    def _answer(self, inputs: Mapping[str, Array]) -> list[Array]:
        buffers = self._buffers_for(inputs)
        if buffers is None:
            answer: list[Array] = self._session.run(self._outputs, dict(inputs), self._plain)
            return answer
        self._run(buffers, inputs)
        copies: list[Array] = buffers.binding.copy_outputs_to_cpu()
        return copies

    def _run(self, buffers: _Buffers, inputs: Mapping[str, Array]) -> None:
        for name, value in buffers.inputs.items():
            value.update_inplace(np.ascontiguousarray(inputs[name]))
        if buffers.graph == _NO_GRAPH:
            # Else the outputs would have to be as large as those of the shape's last batch, which lie there yet.
            for name in self._outputs:
                buffers.binding.bind_output(name, *self._device)
        self._session.run_with_iobinding(buffers.binding, buffers.options)

    def _buffers_for(self, inputs: Mapping[str, Array]) -> _Buffers | None:
        if any(column.dtype.hasobject or not column.size for column in inputs.values()):
            return None
        shapes = tuple((name, column.shape, column.dtype.str) for name, column in sorted(inputs.items()))
        if shapes not in self._buffers and len(self._buffers) < _MOST_SHAPES:
            made = self._made(inputs)
            self._buffers[shapes] = self._with_graph(made, inputs) if self._captured(inputs) else made
        return self._buffers.get(shapes)

    def _made(self, inputs: Mapping[str, Array]) -> _Buffers:
        make_value = self._runtime.OrtValue.ortvalue_from_shape_and_type
        values = {
            name: make_value(list(column.shape), column.dtype.type, *self._places[name])
            for name, column in inputs.items()
        }
        binding = self._session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        return _Buffers(values, binding, self._plain)

    def _with_graph(self, buffers: _Buffers, inputs: Mapping[str, Array]) -> _Buffers:
        """The same with outputs that stay where a run without a graph puts them, and what is done between captured."""
        self._run(buffers, inputs)
        answered = buffers.binding.get_outputs()
        rows = len(next(iter(inputs.values())))
        if any(value.shape()[:1] != [rows] for value in answered):
            return buffers
        for name, value in zip(self._outputs, answered, strict=True):
            buffers.binding.bind_ortvalue_output(name, value)
        # From 1 on, as the runtime takes 0 for itself.
        number = len(self._buffers) + 1
        captured = replace(buffers, graph=number, options=self._options(number))
        try:
            self._run(captured, inputs)
            self._compare(captured, inputs)
        except Exception as error:
            raise NotCapturedError from error
        return captured

    def _compare(self, captured: _Buffers, inputs: Mapping[str, Array]) -> None:
        """Have a replay answer other values than those of the capture, and a run without a graph the same.

        Raises:
            ReplayDiffersError: their answers are not close.
        """
        # Ones beside zeros, with which shapes are captured before the worker joins.
        others = {name: (np.zeros_like if column.any() else np.ones_like)(column) for name, column in inputs.items()}
        self._run(captured, others)
        replayed = captured.binding.copy_outputs_to_cpu()
        expected = self._session.run(self._outputs, others, self._plain)
        if not all(map(_close, replayed, expected)):
            raise ReplayDiffersError

    def _options(self, graph: int) -> Any:
        if not self._graphs:
            return None
        options = self._runtime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph))
        return options


def _never(inputs: Mapping[str, Array]) -> bool:
    return False


def _close(one: Array, other: Array) -> bool:
    nan = one.dtype.kind == "f"
    return one.shape == other.shape and np.allclose(one, other, _RELATIVE, _ABSOLUTE, equal_nan=nan)
