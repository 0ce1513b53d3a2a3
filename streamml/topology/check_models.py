"""Problems of the steps that run a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from streamml.batch.column import ColumnType
from streamml.ports.model import Signature, Tensor
from streamml.topology.model_steps import Batching, Calls, ModelStep, Onnx, Output, Python, Torch
from streamml.topology.sentences import choice_problems, duration_problems
from streamml.topology.steps import Step

Flow = dict[str, ColumnType | None]
"""Columns at one place of a topology; ``None``: of a model that was not looked at."""

_KINDS: Final = {"bool": "bool", "int32": "i4", "int64": "i8", "float32": "f4", "float64": "f8", "text": "text"}
# Names and versions go into metric labels and the prediction header, which is cut at ";" and "@".
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LONGEST_BATCH_S: Final = 60.0


def model_problems(where: str, step: ModelStep, flow: Flow, signature: Signature | None) -> Iterator[str]:
    """Every problem of one model step.

    Args:
        where: begins the sentences.
        flow: the columns before it.
        signature: of its model, as far as it is known.
    """
    yield from _batching_problems(where, step.batching)
    if not step.picks:
        yield f"{where} has no outputs; say which of the model's become columns."
    if isinstance(step, Torch):
        yield from choice_problems(f"{where}: precision", step.precision, ("float32", "float16", "bfloat16"))
        if not step.tolerance > 0:
            yield f"{where} has the tolerance {step.tolerance}; it has to be above 0."
    wrong = list(own_problems(step, where)) if isinstance(step, Python) else []
    yield from wrong
    if signature is not None and not wrong:
        yield from _signature_problems(where, step, flow, signature)


def shared_name_problems(steps: Sequence[Step]) -> Iterator[str]:
    """A model is loaded once by its name, so steps of one name have to mean one model."""
    meant: dict[str, list[tuple[object, ...]]] = {}
    for step in steps:
        if isinstance(step, ModelStep) and (what := _loaded(step)) not in meant.setdefault(step.name, []):
            meant[step.name].append(what)
    for name, models in meant.items():
        if len(models) > 1:
            yield f"Steps name {len(models)} versions of the model {name!r}; give one of them a name of its own."


def _loaded(step: ModelStep) -> tuple[object, ...]:
    """What makes the model that a step runs."""
    shapes = step.batching.ladder, step.batching.lengths
    match step:
        case Python():
            made = (step.factory, step.inputs, step.outputs, step.calls, step.isolation)
            return (Python, step.version, *made, *shapes)
        case Torch():
            return (Torch, step.version, step.factory, step.precision, step.tolerance, step.compile, *shapes)
        case Onnx():
            return (Onnx, step.version, *shapes)


def own_problems(step: Python, where: str | None = None) -> Iterator[str]:
    """What is wrong with a `Python` step whatever comes before it."""
    where = where or f"Model {step.name}"
    if not callable(step.factory):
        yield f"{where} has a factory that cannot be called: {type(step.factory).__name__}."
    for what, text in (("name", step.name), ("version", step.version)):
        if not isinstance(text, str) or not _NAME.fullmatch(text):
            yield f"{where} has the {what} {text!r}; use letters, digits, '.', '_' and '-', beginning with a letter or digit."
    if not step.inputs:
        yield f"{where} has no inputs; name the columns that it gets, with their types."
    for name, declared in (*step.inputs.items(), *step.outputs.items()):
        if declared.kind not in _KINDS.values() or declared.nullable:
            yield f"{where} declares {name!r} as {declared}; a model takes and answers {', '.join(_KINDS.values())}, without nulls."
    yield from choice_problems(f"{where}: isolation", step.isolation, ("thread", "process"))
    if step.isolation == "process" and "<" in getattr(step.factory, "__qualname__", "<"):
        yield f"{where} runs in a process of its own, which finds its factory by name: write it as a function at the top of a file."
    yield from _call_problems(where, step.calls, step.batching.max_batch_size)
    if step.batching.ladder and step.calls.cost:
        yield f"{where} has a ladder and calls with a cost, so rows that only pad a batch would be paid; leave one of them out."


def _call_problems(where: str, calls: Calls, batch: int) -> Iterator[str]:
    rows = batch if calls.rows is None else calls.rows
    for name, value in (("rows", rows), ("concurrency", calls.concurrency)):
        if value < 1:
            yield f"{where} has calls with {name}={value}; it has to be at least 1."
    for name, number in (("rate", calls.rate), ("cost_cap", calls.cost_cap)):
        if number is not None and not number > 0:
            yield f"{where} has calls with {name}={number}; it has to be above 0."
    if not calls.cost >= 0:
        yield f"{where} has calls with cost={calls.cost}; it has to be 0 or above."
    yield from duration_problems(f"{where}: timeout", calls.timeout)
    if calls.rate is not None and calls.rate > 0 and rows > 0 and batch / rows / calls.rate > _LONGEST_BATCH_S:
        yield (
            f"{where} needs {batch / rows / calls.rate:.0f} s for a batch of {batch} rows at rate={calls.rate}; make max_batch_size "
            f"smaller, so that it takes at most {_LONGEST_BATCH_S:.0f} s."
        )
    if calls.cost_cap is not None and calls.cost * batch > calls.cost_cap:
        yield f"{where} spends {calls.cost * batch} on a batch of {batch} rows, above its cost_cap of {calls.cost_cap}; make one smaller, or the other larger."


def _batching_problems(where: str, batching: Batching) -> Iterator[str]:
    if batching.max_batch_size < 1:
        yield f"{where} has max_batch_size {batching.max_batch_size}; it has to be at least 1."
    yield from choice_problems(f"{where}: budget_from", batching.budget_from, ("record", "event"))
    yield from duration_problems(f"{where}: latency_budget", batching.latency_budget)
    yield from choice_problems(f"{where}: on_late", batching.on_late, ("score", "last", "dead_letter"))
    yield from _rung_problems(where, batching)
    if batching.on_late != "score" and batching.latency_budget is None:
        yield f"{where} has on_late {batching.on_late!r} and no latency_budget, so nothing is late; set one."


def _rung_problems(where: str, batching: Batching) -> Iterator[str]:
    for name, sizes in (("ladder", batching.ladder or ()), ("lengths", batching.lengths)):
        if not all(isinstance(size, int) and size >= 1 for size in sizes) or list(sizes) != sorted(set(sizes)):
            yield f"{where} has {name} {sizes}; give whole numbers from 1 on, each larger than the one before."
        elif name == "ladder" and max(sizes, default=0) > batching.max_batch_size:
            yield f"{where} has a ladder up to {max(sizes)} and batches of at most {batching.max_batch_size} rows; make max_batch_size larger, or leave rungs out."


def _signature_problems(where: str, step: ModelStep, flow: Flow, signature: Signature) -> Iterator[str]:
    yield from (
        f"{where} feeds the input {name!r}, which the model has not; it has {', '.join(signature.inputs)}."
        for name in step.feeds
        if name not in signature.inputs
    )
    for name, tensor in signature.inputs.items():
        column = step.feeds.get(name, name)
        if column not in flow:
            if name not in step.feeds:
                yield f"{where}: nothing feeds the model's input {name!r}; make a column of that name, or map one to it by inputs=."
        elif (declared := flow[column]) is not None:
            yield from _feed_problems(where, column, declared, name, tensor)
    for column, output in step.picks.items():
        yield from _output_problems(where, column, output, signature)


def _feed_problems(where: str, column: str, declared: ColumnType, name: str, tensor: Tensor) -> Iterator[str]:
    if declared.nullable:
        yield f"{where} feeds {name!r} by the nullable column {column!r}; fill it by a Transform first."
    if declared.kind not in ("object", _KINDS.get(tensor.dtype)):
        yield f"{where} feeds {name!r}, {tensor}, by {column!r} of type {declared}; convert it by a Transform."
    shapes = (declared.shape, (*declared.shape, 1))
    if declared.kind not in ("object", "text") and not any(_fits(shape, tensor.shape) for shape in shapes):
        yield f"{where} feeds {name!r}, {tensor}, by {column!r} of type {declared}; the shapes of a row differ."


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(want in (None, size) for size, want in zip(shape, wanted, strict=True))


def _output_problems(where: str, column: str, output: Output, signature: Signature) -> Iterator[str]:
    tensor = signature.outputs.get(output.tensor)
    if tensor is None:
        yield f"{where} takes {column!r} from the output {output.tensor!r}, which the model has not; it has {', '.join(signature.outputs)}."
    elif output.column is not None:
        width = tensor.shape[0] if len(tensor.shape) == 1 else None
        if len(tensor.shape) != 1 or (width is not None and not 0 <= output.column < width):
            yield f"{where} takes column {output.column} of {output.tensor!r}, which is {tensor}; it has no such column."


def output_type(output: Output, signature: Signature | None) -> ColumnType | None:
    tensor = signature.outputs.get(output.tensor) if signature else None
    if tensor is None:
        return None
    kind = _KINDS.get(tensor.dtype, "object")
    shape = () if output.column is not None or tensor.shape == (1,) else tensor.shape
    if any(size is None for size in shape):
        return ColumnType("object")
    return ColumnType(kind, tuple(size for size in shape if size is not None))
