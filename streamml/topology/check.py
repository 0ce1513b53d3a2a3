"""Every problem of a topology that can be seen without opening anything."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from streamml.batch.column import ColumnType, default_problem
from streamml.errors import ConfigError
from streamml.ports.model import Signature, Tensor
from streamml.schema.contract import Contract
from streamml.topology.duration import seconds
from streamml.topology.features import FeatureSet
from streamml.topology.steps import Batching, Explode, FeatureLookup, Filter, Onnx, Output, Step, Transform
from streamml.topology.topology import DeadLetterQueue, Sink, Source, Topology

Flow = dict[str, ColumnType | None]
"""Columns at one place of a topology; ``None``: of a model that was not looked at."""

Signatures = Mapping[str, Signature]

PROVENANCE_FIELDS: Final[Mapping[str, str]] = {
    "prediction_id": "text",
    "model": "text",
    "revision": "i8",
    "flags": "text",
}
_OURS: Final = "streamml"
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_OF_TENSOR: Final = {"bool": "bool", "int32": "i4", "int64": "i8", "float32": "f4", "float64": "f8", "text": "text"}
_KEY_KINDS: Final = ("text", "bytes", "i4", "i8")
# What may be written into a field without changing a value.
_WIDENS: Final = {("i4", "i8"), ("i4", "f8"), ("i8", "f8"), ("f4", "f8"), ("bool", "i8")}


def problems(topology: Topology, signatures: Signatures | None = None) -> list[str]:
    """Every problem, each one sentence with its remedy.

    Args:
        topology: what was declared.
        signatures: of the models by name, as far as they are known.
    """
    found = [*_name_problems(topology), *_source_problems(topology.source)]
    found += _dead_letter_problems(topology.dead_letters)
    found += _version_problems(topology)
    flow, wrong = columns_after(topology, len(topology.steps), signatures)
    return [*found, *wrong, *_sink_problems(topology, flow)]


def _version_problems(topology: Topology) -> Iterator[str]:
    versions: dict[str, set[str | None]] = {}
    for step in topology.steps:
        if isinstance(step, Onnx):
            versions.setdefault(step.name, set()).add(step.version)
    for name, named in versions.items():
        if len(named) > 1:
            yield f"Steps name {len(named)} versions of the model {name!r}; put one of them into a folder of its own name."


def columns_after(topology: Topology, steps: int, signatures: Signatures | None = None) -> tuple[Flow, list[str]]:
    """Columns after the first ``steps`` steps, and the problems on the way there."""
    flow: Flow = dict(contract.columns) if (contract := _contract(topology.source.schema)) else {}
    found: list[str] = []
    exploded = False
    for number, step in enumerate(topology.steps[:steps], 1):
        where = f"Step {number} ({step.name})"
        found += _input_problems(where, step, flow)
        if isinstance(step, Explode) and exploded:
            found.append(f"{where} is a second Explode; a topology has one, so make all children in it.")
        exploded = exploded or isinstance(step, Explode)
        added = outputs_of(step, (signatures or {}).get(step.name))
        found += [
            f"{where} makes the column {name!r}, which is there already; give it another name."
            for name in added
            if name in flow
        ]
        found += _step_problems(where, step, flow, (signatures or {}).get(step.name))
        flow.update(added)
    return flow, found


def outputs_of(step: Step, signature: Signature | None = None) -> Flow:
    """Columns that a step adds."""
    match step:
        case FeatureLookup():
            return {name: declared for one in step.sets for name, declared in one.outputs.items()}
        case Transform() | Explode():
            return dict(step.outputs)
        case Filter():
            return {}
        case Onnx():
            return {column: _output_type(output, signature) for column, output in step.outputs.items()}


def inputs_of(step: Step, signature: Signature | None = None) -> set[str]:
    """Names of the columns that a step reads; of a model without its signature those that the step names."""
    match step:
        case FeatureLookup():
            return {column for one in step.sets for column in one.key}
        case Transform() | Explode() | Filter():
            return set(step.inputs)
        case Onnx():
            names = [*step.inputs, *(signature.inputs if signature else ())]
            return {step.inputs.get(name, name) for name in names}


def _contract(model: type) -> Contract | None:
    try:
        return Contract.of(model)
    except ConfigError:
        return None


def _name_problems(topology: Topology) -> Iterator[str]:
    if not topology.name or not _TOPIC.fullmatch(topology.name):
        yield f"The topology's name {topology.name!r} has to be 1 to 249 of A-Z a-z 0-9 . _ -, as it names the group."
    if not topology.source.topics:
        yield "The source has no topic; name at least one."
    roles = [*(("source", name) for name in topology.source.topics), ("sink", topology.sink.topic)]
    roles.append(("dead-letter", topology.dead_letters.topic))
    seen: dict[str, str] = {}
    for role, name in roles:
        if not isinstance(name, str) or not _TOPIC.fullmatch(name):
            yield f"The {role} topic {name!r} has to be 1 to 249 of A-Z a-z 0-9 . _ -; rename it."
        elif name in seen:
            yield f"{name!r} is the {role} topic and the {seen[name]} topic; they have to be different topics."
        seen.setdefault(name, role)


def _source_problems(source: Source) -> Iterator[str]:
    yield from _choice("The source's start", source.start, ("earliest", "latest"))
    yield from _choice("The source's parsing", source.parsing, ("strict", "pydantic"))
    yield from _choice("The source's duplicate_keys", source.duplicate_keys, ("reject", "last"))
    yield from _choice("The source's partitions_added", source.partitions_added, ("read", "stop"))
    yield from _choice("The source's on_tombstone", source.on_tombstone, ("drop", "forward", "dead_letter"))
    if source.max_record_bytes < 1:
        yield f"The source's max_record_bytes is {source.max_record_bytes}; it has to be at least 1."
    try:
        contract = Contract.of(source.schema)
    except ConfigError as error:
        yield from error.problems
        return
    if source.parsing == "strict":
        yield from contract.problems
    for name in source.secret:
        if name not in source.schema.model_fields:
            yield f"The source's secret field {name!r} is no field of {source.schema.__name__}; name one that is."
    if source.event_time is None:
        return
    declared = contract.columns.get(source.event_time)
    if declared is None:
        yield f"The source's event_time {source.event_time!r} is no field of {source.schema.__name__}; name one that is."
    elif declared.kind != "timestamp" or declared.nullable:
        yield f"The source's event_time {source.event_time!r} is {declared}; it has to be a datetime that is always there."


def _dead_letter_problems(letters: DeadLetterQueue) -> Iterator[str]:
    if not 0 <= letters.max_ratio <= 1:
        yield f"The dead-letter max_ratio is {letters.max_ratio}; it has to be from 0 to 1."
    if letters.min_sample < 1:
        yield f"The dead-letter min_sample is {letters.min_sample}; it has to be at least 1."


def _choice(what: str, value: object, allowed: tuple[str, ...]) -> Iterator[str]:
    if value not in allowed:
        yield f"{what} is {value!r}; choose among {', '.join(allowed)}."


def _input_problems(where: str, step: Step, flow: Flow) -> Iterator[str]:
    for name in sorted(inputs_of(step) - flow.keys()):
        yield f"{where} reads the column {name!r}, which nothing before it makes; there are {', '.join(flow) or 'none'}."


def _step_problems(where: str, step: Step, flow: Flow, signature: Signature | None) -> Iterator[str]:
    match step:
        case FeatureLookup():
            if not step.sets:
                yield f"{where} looks up nothing; give it a FeatureSet."
            for one in step.sets:
                yield from _set_problems(f"{where}: feature set {one.name!r}", one, flow)
        case Onnx():
            yield from _batching_problems(where, step.batching)
            if not step.outputs:
                yield f"{where} has no outputs; say which of the model's become columns."
            if signature is not None:
                yield from _model_problems(where, step, flow, signature)
        case _:
            if not callable(step.function):
                yield f"{where} has a function that cannot be called: {type(step.function).__name__}."


def _set_problems(where: str, one: FeatureSet, flow: Flow) -> Iterator[str]:
    if not one.key:
        yield f"{where} has no key; name the columns that say which entity a row is about."
    for name in one.key:
        declared = flow.get(name)
        if declared is not None and (declared.kind not in _KEY_KINDS or declared.shape):
            yield f"{where} has the key {name!r} of type {declared}; a key is text, bytes or an integer: make one by a Transform."
    if not one.columns:
        yield f"{where} has no columns; declare what is stored."
    policies = {"if_missing": one.if_missing, "if_stale": one.if_stale}
    for policy, value in policies.items():
        yield from _choice(f"{where}: {policy}", value, ("default", "dead_letter", "fail"))
    yield from _choice(f"{where}: if_unavailable", one.if_unavailable, ("wait", "default"))
    if not 0 <= one.max_default_ratio <= 1:
        yield f"{where} has max_default_ratio {one.max_default_ratio}; it has to be from 0 to 1."
    yield from _duration(f"{where}: ttl", one.ttl)
    defaults = "default" in (one.if_missing, one.if_stale, one.if_unavailable)
    for name, declared in one.columns.items():
        if not declared.numeric and declared.kind != "timestamp":
            yield f"{where} has the column {name!r} of type {declared}; only numbers, times and vectors of them are stored."
        elif declared.nullable:
            yield f"{where} has the nullable column {name!r}; stored values have no null: declare a default instead."
        elif defaults and declared.default is None:
            yield f"{where} has the column {name!r} without a default, and a policy is 'default'; write {declared.kind}(default=…)."
        elif declared.default is not None and (wrong := default_problem(declared)):
            yield f"{where} has the column {name!r} with a default that {wrong}: {declared.default!r}; correct it."


def _batching_problems(where: str, batching: Batching) -> Iterator[str]:
    if batching.max_batch_size < 1:
        yield f"{where} has max_batch_size {batching.max_batch_size}; it has to be at least 1."
    yield from _choice(f"{where}: budget_from", batching.budget_from, ("record", "event"))
    yield from _duration(f"{where}: latency_budget", batching.latency_budget)
    yield from _choice(f"{where}: on_late", batching.on_late, ("score", "last", "dead_letter"))
    if batching.on_late != "score" and batching.latency_budget is None:
        yield f"{where} has on_late {batching.on_late!r} and no latency_budget, so nothing is late; set one."


def _duration(what: str, spelling: str | None) -> Iterator[str]:
    try:
        if spelling is not None and seconds(spelling) <= 0:
            yield f"{what} is {spelling!r}; it has to be longer than nothing."
    except ValueError as error:
        yield f"{what}: {error}"


def _model_problems(where: str, step: Onnx, flow: Flow, signature: Signature) -> Iterator[str]:
    yield from (
        f"{where} feeds the input {name!r}, which the model has not; it has {', '.join(signature.inputs)}."
        for name in step.inputs
        if name not in signature.inputs
    )
    for name, tensor in signature.inputs.items():
        column = step.inputs.get(name, name)
        if column not in flow:
            if name not in step.inputs:
                yield f"{where}: nothing feeds the model's input {name!r}; make a column of that name, or map one to it by inputs=."
        elif (declared := flow[column]) is not None:
            yield from _feed_problems(where, column, declared, name, tensor)
    for column, output in step.outputs.items():
        yield from _output_problems(where, column, output, signature)


def _feed_problems(where: str, column: str, declared: ColumnType, name: str, tensor: Tensor) -> Iterator[str]:
    if declared.nullable:
        yield f"{where} feeds {name!r} by the nullable column {column!r}; fill it by a Transform first."
    if declared.kind not in ("object", _OF_TENSOR.get(tensor.dtype)):
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


def _output_type(output: Output, signature: Signature | None) -> ColumnType | None:
    tensor = signature.outputs.get(output.tensor) if signature else None
    if tensor is None:
        return None
    kind = _OF_TENSOR.get(tensor.dtype, "object")
    shape = () if output.column is not None or tensor.shape == (1,) else tensor.shape
    if any(size is None for size in shape):
        return ColumnType("object")
    return ColumnType(kind, tuple(size for size in shape if size is not None))


def _sink_problems(topology: Topology, flow: Flow) -> Iterator[str]:
    sink = topology.sink
    yield from _choice("The sink's provenance", sink.provenance, ("header", "fields"))
    yield from _choice("The sink's order", sink.order, ("partition", "none"))
    yield from _header_problems(sink)
    for step in topology.steps:
        if isinstance(step, Onnx) and step.batching.on_late == "last" and sink.order == "partition":
            yield f'{step.name!r} has on_late "last", which gives up the order of rows, and the sink keeps it; set Sink(order="none").'
    if sink.key is not None and sink.key not in flow:
        yield f"The sink's key {sink.key!r} is no column; there are {', '.join(flow)}."
    elif sink.key is not None and (declared := flow[sink.key]) is not None and declared.kind not in _KEY_KINDS:
        yield f"The sink's key {sink.key!r} is {declared}; a key is text, bytes or an integer."
    try:
        contract = Contract.of(sink.schema)
    except ConfigError as error:
        yield from error.problems
        return
    yield from contract.output_problems
    yield from _provenance_problems(sink, contract)
    fed: Flow = dict(flow)
    if sink.provenance == "fields":
        fed |= {name: ColumnType(kind) for name, kind in PROVENANCE_FIELDS.items()}
    for field in contract.fields:
        if field.name not in fed:
            if field.required:
                yield f"{sink.schema.__name__}.{field.name} is fed by no column; make one of that name, or give the field a default."
        elif (declared := fed[field.name]) is not None and not _writes(declared, field.column):
            yield f"{sink.schema.__name__}.{field.name} is {field.column}, but the column {field.name!r} is {declared}; convert it by a Transform."


def _header_problems(sink: Sink) -> Iterator[str]:
    """An event's header under a name of ours would pass for provenance: whoever writes events could forge it."""
    for name in sink.headers:
        if not isinstance(name, str) or not name:
            yield f"The sink passes on the header {name!r}; a header's name is text."
        elif name == _OURS or name.startswith(f"{_OURS}."):
            yield f"The sink passes on the header {name!r}, but {_OURS!r} and {_OURS + '.*'!r} are written by workers alone; leave it out."


def _provenance_problems(sink: Sink, contract: Contract) -> Iterator[str]:
    if sink.provenance != "fields":
        return
    for name, kind in PROVENANCE_FIELDS.items():
        declared = contract.columns.get(name)
        if declared is None or declared.kind != kind:
            spelled = "str" if kind == "text" else "int"
            yield f"The sink's provenance is 'fields', so {sink.schema.__name__} needs the field `{name}: {spelled}`."


def _writes(column: ColumnType, field: ColumnType) -> bool:
    if "object" in (column.kind, field.kind):
        return True
    if column.nullable and not field.nullable:
        return False
    return column.shape == field.shape and (column.kind == field.kind or (column.kind, field.kind) in _WIDENS)
