"""Opens ONNX models for CUDA graphs where they allow it, and without where they do not.

A replay asks the device for what it was asked for when the shape was captured, and for nothing else: no operator on the CPU runs, no input
or output is looked for anew, no size is computed again. The session itself refuses models with control flow, and those
with operators that hand over between devices; what else would be answered from the time of the capture is left out here.

ONNX Runtime keeps graphs by thread, so a session with graphs has a thread of its own. It can only capture while no other
thread allocates memory on the device, which holds as long as models are warmed one after the other: nothing is captured after a
model's first error, which ends that. Its TensorRT keeps one graph, whatever the shape, so shapes are only captured where CUDA comes
first.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from streamml.adapters.models.onnx_bound import NotCapturedError, ReplayDiffersError, places
from streamml.adapters.models.onnx_session import (
    OnnxSettings,
    Scored,
    node_in,
    onnxruntime,
    open_session,
    read_signature,
    scorer,
)
from streamml.batch.column import Array
from streamml.errors import ConfigError
from streamml.ports.model import Signature

_LOG: Final = logging.getLogger("streamml.models")
_LEAST_VERSION: Final = (1, 31)
_CUDA_FAILURE: Final = re.compile(r"CUDA failure \d+: [^;]+")


def open_scorer(path: Path, label: str, settings: OnnxSettings) -> tuple[Signature, list[str], Scored]:
    """What a file holds, as `read_signature` says it, and what answers its outputs, in order.

    Args:
        label: what log lines call the model.

    Raises:
        ConfigError: as `open_session`.
    """
    why = None
    if settings.graphs:
        try:
            session = open_session(path, settings)
        except ConfigError as error:
            why = " ".join(str(error.__cause__ or error).split())
        else:
            signature, problems = read_signature(path, session)
            why = None if problems else obstacle(session, signature, settings)
            if why is None:
                return signature, problems, _with_graphs(path, label, session, signature, settings)
            del session
    plain = replace(settings, captured=())
    session = open_session(path, plain)
    if why is not None:
        _not_captured(label, why)
    signature, problems = read_signature(path, session)
    return signature, problems, scorer(session, list(signature.outputs), plain)


def obstacle(session: Any, signature: Signature, settings: OnnxSettings) -> str | None:
    """Why a session that has not refused graphs must not have them; ``None``: it may."""
    version = onnxruntime().__version__
    if tuple(map(int, version.split(".")[:2])) < _LEAST_VERSION:
        return f"ONNX Runtime {version} gives away memory that graphs of several shapes read, which 1.31 keeps"
    for name, tensor in signature.outputs.items():
        if None in tensor.shape:
            return f"the file leaves the size of the output {name!r} open, which may depend on values"
    for name, tensor in signature.inputs.items():
        if None in tensor.shape and not settings.lengths:
            return f"rows of the input {name!r} have any length; Batching(lengths=) makes them few"
    for nodes, memory, tensors in (
        (session.get_inputs(), session.get_input_memory_infos(), signature.inputs),
        (session.get_outputs(), session.get_output_memory_infos(), signature.outputs),
    ):
        for name, place in places(nodes, memory, settings.place).items():
            if place != settings.place or tensors[name].dtype == "text":
                return f"{name!r} is read or written on the CPU"
    return None


def _with_graphs(path: Path, label: str, session: Any, signature: Signature, settings: OnnxSettings) -> Scored:
    outputs, plain = list(signature.outputs), replace(settings, captured=())

    def without() -> Scored:
        return scorer(open_session(path, plain), outputs, plain)

    return _Graphs(scorer(session, outputs, settings, _of_a_rung(signature, settings)), without, label).run


def _of_a_rung(signature: Signature, settings: OnnxSettings) -> Callable[[Mapping[str, Array]], bool]:
    """Whether inputs have one of the shapes that batches are padded to; others may never come again."""

    def of_a_ladder(name: str, shape: Sequence[int]) -> bool:
        declared = signature.inputs[name].shape
        lengths = [size for size, own in zip(shape[1:], declared, strict=True) if own is None]
        return shape[0] in settings.captured and all(size in settings.lengths for size in lengths)

    return lambda inputs: all(of_a_ladder(name, column.shape) for name, column in inputs.items())


class _Graphs:
    """Scores by graphs, and without from the first shape on that cannot be captured."""

    def __init__(self, scored: Scored, without: Callable[[], Scored], label: str) -> None:
        self._scored: Scored | None = scored
        self._without = without
        self._label = label
        self._thread = _OwnThread(f"streamml-graphs-{label}")

    def run(self, inputs: Mapping[str, Array]) -> Sequence[Array]:
        return self._thread.call(lambda: self._run(inputs))

    def _run(self, inputs: Mapping[str, Array]) -> Sequence[Array]:
        if self._scored is None:
            self._scored = self._without()
        try:
            return self._scored(inputs)
        except NotCapturedError as error:
            why = _reason(error.__cause__)
        # The session goes before the next one comes, which takes as much memory.
        self._scored = None
        _not_captured(self._label, why)
        return self._run(inputs)


def _not_captured(label: str, why: str) -> None:
    _LOG.warning("Model %s cannot be captured as CUDA graphs (%s); it runs without.", label, why)


def _reason(error: BaseException | None) -> str:
    """What an exception of a capture says, but for values, which messages of the runtime quote."""
    if isinstance(error, ReplayDiffersError):
        return "a replay answers other than a run without"
    message = str(error)
    failure = _CUDA_FAILURE.search(message)
    return f"{failure[0].strip() if failure else type(error).__name__}{node_in(message)}"


class _OwnThread:
    """A thread that runs what others ask for, and wait for. It ends with the last reference to this."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        # A daemon, as a model that hangs must not keep the process alive past its shutdown budget.
        threading.Thread(target=_work, args=(self._calls,), name=name, daemon=True).start()
        weakref.finalize(self, self._calls.put, None)

    def call(self, function: Callable[[], Sequence[Array]]) -> Sequence[Array]:
        call = _Call(function)
        self._calls.put(call)
        answer = call.answer.get()
        try:
            if isinstance(answer, BaseException):
                raise answer
            return answer
        finally:
            # An exception and the frame that raises it would hold each other, and the session.
            del answer


@dataclass(slots=True)
class _Call:
    function: Callable[[], Sequence[Array]]
    answer: queue.SimpleQueue[Sequence[Array] | BaseException] = field(default_factory=queue.SimpleQueue)


def _work(calls: queue.SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        try:
            call.answer.put(call.function())
        except BaseException as error:  # noqa: BLE001  raised where the answer is waited for
            call.answer.put(error)
        # What it refers to has to go when its asker lets it go, not when the next call comes.
        del call
