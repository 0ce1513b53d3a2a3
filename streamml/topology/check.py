"""Every problem of a topology that can be seen without opening anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from streamml.batch.column import ColumnType
from streamml.errors import ConfigError
from streamml.ports.model import Signature
from streamml.schema.contract import Contract
from streamml.topology.check_features import KEY_KINDS, set_problems, shared_set_problems
from streamml.topology.check_models import Flow, model_problems, output_type, shared_name_problems
from streamml.topology.model_steps import ModelStep, Onnx, Python, Torch
from streamml.topology.sentences import (
    KEPT_FOR_S,
    TOPIC_NAMES,
    choice_problems,
    duration_problems,
    latest_name_problem,
    names_topic,
    topic_problem,
)
from streamml.topology.steps import Explode, FeatureLookup, Filter, Step, Transform
from streamml.topology.topology import DeadLetterQueue, RedisSink, Sink, Source, Topology, Unsaid
from streamml.topology.typed import type_problems

Signatures = Mapping[str, Signature]

PROVENANCE_FIELDS: Final[Mapping[str, str]] = {
    "prediction_id": "text",
    "model": "text",
    "revision": "i8",
    "flags": "text",
}
_OURS: Final = "streamml"
# What may be written into a field without changing a value.
_WIDENS: Final = {("i4", "i8"), ("i4", "f8"), ("i8", "f8"), ("f4", "f8"), ("bool", "i8")}


def problems(topology: Topology, signatures: Signatures | None = None) -> list[str]:
    """Every problem, each one sentence with its remedy. Where something is not of its declared type, only that is told.

    Args:
        topology: what was declared.
        signatures: of the models by name, as far as they are known.
    """
    if wrong := list(type_problems(topology)):
        return wrong
    found = [*_name_problems(topology), *_source_problems(topology.source)]
    found += [
        *_dead_letter_problems(topology.dead_letters),
        *_feature_log_problems(topology),
        *_latest_problems(topology),
    ]
    found += [*shared_name_problems(topology.steps), *shared_set_problems(topology.steps)]
    flow, wrong = columns_after(topology, len(topology.steps), signatures)
    return [*found, *wrong, *_sink_problems(topology, flow)]


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
        signature = (signatures or {}).get(step.name) or (step.declared if isinstance(step, ModelStep) else None)
        added = outputs_of(step, signature)
        found += [
            f"{where} makes the column {name!r}, which is there already; give it another name."
            for name in added
            if name in flow
        ]
        found += _step_problems(where, step, flow, signature)
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
        case Onnx() | Python() | Torch():
            return {column: output_type(output, signature) for column, output in step.picks.items()}


def inputs_of(step: Step, signature: Signature | None = None) -> set[str]:
    """Names of the columns that a step reads; of a model without its signature those that the step names."""
    match step:
        case FeatureLookup():
            return {column for one in step.sets for column in one.key}
        case Transform() | Explode() | Filter():
            return set(step.inputs)
        case Onnx() | Python() | Torch():
            names = [*step.feeds, *(signature.inputs if signature else ())]
            return {step.feeds.get(name, name) for name in names}


def _contract(model: type) -> Contract | None:
    try:
        return Contract.of(model)
    except ConfigError:
        return None


def _name_problems(topology: Topology) -> Iterator[str]:
    if not names_topic(topology.name):
        yield f"The topology's name {topology.name!r} has to be {TOPIC_NAMES}, as it names the group."
    if not topology.source.topics:
        yield "The source has no topic; name at least one."
    roles = [("source", name) for name in topology.source.topics]
    if not isinstance(topology.sink, RedisSink):
        roles.append(("sink", topology.sink.topic))
    roles.append(("dead-letter", topology.dead_letters.topic))
    if topology.feature_log is not None:
        roles.append(("feature-log", topology.feature_log.topic))
    seen: dict[str, str] = {}
    for role, name in roles:
        if wrong := topic_problem(f"The {role} topic", name):
            yield wrong
        elif name in seen:
            yield f"{name!r} is the {role} topic and the {seen[name]} topic; they have to be different topics."
        seen.setdefault(name, role)


def _source_problems(source: Source) -> Iterator[str]:
    yield from choice_problems("The source's start", source.start, ("earliest", "latest"))
    yield from choice_problems("The source's parsing", source.parsing, ("strict", "pydantic"))
    yield from choice_problems("The source's duplicate_keys", source.duplicate_keys, ("reject", "last"))
    yield from choice_problems("The source's partitions_added", source.partitions_added, ("read", "stop"))
    yield from choice_problems("The source's on_tombstone", source.on_tombstone, ("drop", "forward", "dead_letter"))
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


def _latest_problems(topology: Topology) -> Iterator[str]:
    latest = topology.redis_sink
    if latest is None:
        return
    if topology.sink is not latest:
        yield from _beside_problems(topology.sink, latest)
    elif latest.schema is Unsaid:
        yield f"The RedisSink {latest.name!r} is the sink and has no schema; name the model of a prediction in RedisSink(schema=)."
    if topology.latest is not None and isinstance(topology.sink, RedisSink):
        yield f"The sink is a RedisSink, and {topology.latest.name!r} is another one beside it; leave Topology(latest=) out."
    if wrong := latest_name_problem(latest.name):
        yield wrong
    yield from duration_problems(f"The ttl of the RedisSink {latest.name!r}", latest.ttl, KEPT_FOR_S)
    if topology.sink.key is None:
        yield f"The RedisSink {latest.name!r} keeps predictions by the sink's key, and there is none; name a column in {type(topology.sink).__name__}(key=)."


def _beside_problems(sink: Sink | RedisSink, latest: RedisSink) -> Iterator[str]:
    if latest.schema is not Unsaid or latest.key is not None:
        yield f"The RedisSink {latest.name!r} beside a topic keeps what the topic has; leave its schema and key out."
    if sink.provenance != "header":
        yield f'The RedisSink {latest.name!r} takes a prediction\'s id from its header; set Sink(provenance="header").'


def _feature_log_problems(topology: Topology) -> Iterator[str]:
    if topology.feature_log is None:
        return
    if not topology.feature_columns:
        yield "The topology has a feature_log and looks up no features; add a FeatureLookup, or leave the log out."
    if topology.sink.order != "partition":
        yield 'A feature log is in the order of the source, and the sink\'s order is "none"; set Sink(order="partition"), or leave the log out.'


def _input_problems(where: str, step: Step, flow: Flow) -> Iterator[str]:
    for name in sorted(inputs_of(step) - flow.keys()):
        yield f"{where} reads the column {name!r}, which nothing before it makes; there are {', '.join(flow) or 'none'}."


def _step_problems(where: str, step: Step, flow: Flow, signature: Signature | None) -> Iterator[str]:
    match step:
        case FeatureLookup():
            if not step.sets:
                yield f"{where} looks up nothing; give it a FeatureSet."
            for one in step.sets:
                yield from set_problems(f"{where}: feature set {one.name!r}", one, flow)
        case Onnx() | Python() | Torch():
            yield from model_problems(where, step, flow, signature)
        case _:
            if not callable(step.function):
                yield f"{where} has a function that cannot be called: {type(step.function).__name__}."


def _sink_problems(topology: Topology, flow: Flow) -> Iterator[str]:
    sink = topology.sink
    yield from choice_problems("The sink's provenance", sink.provenance, ("header", "fields"))
    yield from choice_problems("The sink's order", sink.order, ("partition", "none"))
    yield from _header_problems(sink)
    for step in topology.steps:
        if isinstance(step, ModelStep) and step.batching.budget_from == "event" and topology.source.event_time is None:
            yield f'{step.name!r} has budget_from "event", and the source names no event_time; name the field in Source(event_time=).'
        if isinstance(step, ModelStep) and step.batching.on_late == "last" and sink.order == "partition":
            yield f'{step.name!r} has on_late "last", which gives up the order of rows, and the sink keeps it; set Sink(order="none").'
    if sink.key is not None and sink.key not in flow:
        yield f"The sink's key {sink.key!r} is no column; there are {', '.join(flow)}."
    elif sink.key is not None and (declared := flow[sink.key]) is not None and declared.kind not in KEY_KINDS:
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


def _header_problems(sink: Sink | RedisSink) -> Iterator[str]:
    """An event's header under a name of ours would pass for provenance: whoever writes events could forge it."""
    for name in sink.headers:
        if not isinstance(name, str) or not name:
            yield f"The sink passes on the header {name!r}; a header's name is text."
        elif name == _OURS or name.startswith(f"{_OURS}."):
            yield f"The sink passes on the header {name!r}, but {_OURS!r} and {_OURS + '.*'!r} are written by workers alone; leave it out."


def _provenance_problems(sink: Sink | RedisSink, contract: Contract) -> Iterator[str]:
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
