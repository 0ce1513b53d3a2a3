"""Keeps a device busy: buffers that stay where they are, copies beside computing, and batches replayed as graphs.

A batch is cut over a ring of slots. Each has pinned memory on the host and memory on the device, so that the second slot's rows
are copied in while the first's are computed, and the first's answers are copied out while the second's are. Copies and computing
have streams of their own, and events between them. What is done for a shape that has a graph is one call into the driver
(CUDA graphs: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). On a CPU the same code runs without streams,
events and graphs, which is slower than not to use it, and for tests only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from streamml.batch.column import Array

_LOG: Final = logging.getLogger("streamml.models")
_MOST_SLOTS: Final = 256
_LEAST_ROWS: Final = 32
_RUNS_BEFORE_CAPTURE: Final = 3

Compute = Callable[..., list[Any]]
"""Tensors on the device to tensors on the device, in the order of the signature."""


@dataclass(slots=True)
class _Slot:
    """Memory for so many rows of one shape, and the graphs that were captured on it, by rows."""

    host: list[Any]
    device: list[Any]
    graphs: dict[int, tuple[Any, list[Any]]] = field(default_factory=dict)
    answers: list[Any] = field(default_factory=list)
    """What is on its way to ``returned``; held until it is there."""
    returned: list[Any] = field(default_factory=list)
    done: Any = None


class Ring:
    """Runs ``compute`` on arrays. Calls come from one thread at a time."""

    def __init__(
        self, compute: Compute, device: str, label: str, *, slots: int = 2, captured: Collection[int] = ()
    ) -> None:
        """
        Args:
            device: as PyTorch spells it.
            label: what log lines call the model.
            slots: parts of a batch that are on their way at a time, at least 1; few rows are not cut.
            captured: numbers of rows for which a graph is captured when they come first; not on a CPU.
        """
        import torch

        self._torch = torch
        self._compute = compute
        self._device = device
        self._label = label
        self._count = slots
        self._on_gpu = device != "cpu"
        self._captured = frozenset(captured if self._on_gpu else ())
        self._slots: dict[tuple[object, ...], _Slot] = {}
        self._in, self._computing, self._out = (torch.cuda.Stream(device) if self._on_gpu else None for _ in range(3))

    def run(self, columns: Sequence[Array]) -> list[Array]:
        """Answers of ``n`` ≥ 1 rows, as arrays of their own."""
        try:
            started = [
                self._started(number, [column[rows] for column in columns])
                for number, rows in enumerate(self._parts(len(columns[0])))
            ]
            parts = [self._returned(slot) for slot in started]
        except Exception:
            # What was on its way may still write to these buffers; they are not used again.
            self._slots.clear()
            raise
        return parts[0] if len(parts) == 1 else [np.concatenate(one) for one in zip(*parts, strict=True)]

    def _parts(self, rows: int) -> list[slice]:
        size = -(-rows // self._count)
        if size < _LEAST_ROWS or (rows in self._captured and (size not in self._captured or rows % size)):
            return [slice(0, rows)]
        return [slice(start, start + size) for start in range(0, rows, size)]

    def _started(self, number: int, columns: Sequence[Array]) -> _Slot:
        """Everything of a part asked for, and nothing waited for but what a capture needs."""
        rows, slot = len(columns[0]), self._slot(number, columns)
        for host, column in zip(slot.host, columns, strict=True):
            host[:rows].numpy()[...] = column
        with self._torch.cuda.stream(self._in):
            views = [to[:rows] for to in slot.device]
            for view, host in zip(views, slot.host, strict=True):
                if self._on_gpu:
                    view.copy_(host[:rows], non_blocking=True)
        self._after(self._in, self._computing)
        slot.answers = self._answers(slot, views, rows)
        self._after(self._computing, self._out)
        with self._torch.cuda.stream(self._out):
            slot.returned = [self._to_host(answer) for answer in slot.answers]
        slot.done = self._out.record_event() if self._out else None
        return slot

    def _returned(self, slot: _Slot) -> list[Array]:
        if slot.done is not None:
            slot.done.synchronize()
        arrays = [np.array(tensor.numpy()) for tensor in slot.returned]
        slot.answers, slot.returned = [], []
        return arrays

    def _slot(self, number: int, columns: Sequence[Array]) -> _Slot:
        room = 1 << (len(columns[0]) - 1).bit_length()
        key = (number, room, *((column.shape[1:], column.dtype.str) for column in columns))
        if key not in self._slots:
            if len(self._slots) >= _MOST_SLOTS:
                self._slots.clear()
            self._slots[key] = self._new_slot(room, columns)
        return self._slots[key]

    def _new_slot(self, room: int, columns: Sequence[Array]) -> _Slot:
        torch = self._torch
        kinds = [torch.from_numpy(np.empty(0, column.dtype)).dtype for column in columns]
        shapes = [(room, *column.shape[1:]) for column in columns]
        host = [
            torch.empty(shape, dtype=kind, pin_memory=self._on_gpu) for shape, kind in zip(shapes, kinds, strict=True)
        ]
        return _Slot(host, [one.to(self._device) for one in host])

    def _answers(self, slot: _Slot, views: list[Any], rows: int) -> list[Any]:
        if rows in self._captured and rows not in slot.graphs:
            self._capture(slot, views, rows)
        with self._torch.cuda.stream(self._computing):
            if rows not in slot.graphs:
                return self._compute(*views)
            graph, answers = slot.graphs[rows]
            graph.replay()
            return answers

    def _capture(self, slot: _Slot, views: list[Any], rows: int) -> None:
        """Capture what is done for these rows; where that cannot be, it is done call by call from now on."""
        torch = self._torch
        try:
            with torch.cuda.stream(self._computing):
                for _ in range(_RUNS_BEFORE_CAPTURE):
                    self._compute(*views)
            torch.cuda.synchronize(self._device)
            graph = torch.cuda.CUDAGraph()
            # What other threads ask of the device meanwhile, for another model, is none of this capture.
            with torch.cuda.graph(graph, stream=self._computing, capture_error_mode="thread_local"):
                answers = self._compute(*views)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            _LOG.warning("Model %s cannot be captured as a graph (%s); it runs without.", self._label, error)
            self._captured = frozenset()
        else:
            slot.graphs[rows] = (graph, answers)

    def _to_host(self, answer: Any) -> Any:
        if not self._on_gpu:
            return answer
        return self._torch.empty(answer.shape, dtype=answer.dtype, pin_memory=True).copy_(answer, non_blocking=True)

    def _after(self, first: Any, then: Any) -> None:
        """What is asked of ``then`` from now on waits for what was asked of ``first``."""
        if first is not None:
            then.wait_event(first.record_event())
