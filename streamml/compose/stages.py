"""A topology's steps as stages, and what the engine decides by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from streamml.adapters.codecs.json import json_decoder
from streamml.adapters.codecs.json_encode import json_encoder
from streamml.batch.microbatch import HEADERS, KEY
from streamml.compose.models import rungs_of
from streamml.compose.sweep import Costs
from streamml.engine.backpressure import Budget
from streamml.engine.batcher import BatchPolicy
from streamml.engine.dead_letters import DeadLetterLimit
from streamml.engine.deadline import LatencyBudget
from streamml.engine.engine import EngineConfig
from streamml.engine.feature_log import LogConfig, LogSchema
from streamml.ports.feature_store import FeatureStore
from streamml.ports.model import Model
from streamml.schema.contract import Contract
from streamml.settings.settings import WorkerSettings
from streamml.stages.codec import Decode, Encode, EncodeConfig
from streamml.stages.functions import ApplyExplode, ApplyFilter, ApplyTransform
from streamml.stages.lookup import LookUp
from streamml.stages.model import RunModel
from streamml.stages.stage import Operator, Stage
from streamml.topology.check import PROVENANCE_FIELDS, outputs_of
from streamml.topology.duration import seconds
from streamml.topology.model_steps import ModelStep, Onnx, Python, Torch
from streamml.topology.plan import Plan, StagePlan, plan
from streamml.topology.steps import Explode, FeatureLookup, Filter, Step, Transform
from streamml.topology.topology import RedisSink, Topology


def plan_of(topology: Topology, models: Mapping[str, Model]) -> Plan:
    """How the topology is cut, given its models."""
    return plan(topology, {name: model.signature for name, model in models.items()})


def build_stages(
    topology: Topology,
    models: Mapping[str, Model],
    store: FeatureStore | None,
    prefixes: Sequence[str],
    *,
    max_prediction_bytes: int = 1_000_000,
    revision: int = 0,
    around: Callable[[Operator], Operator] = lambda operator: operator,
) -> list[Stage]:
    """The stages of a topology that has no problems.

    Args:
        models: all that the topology names.
        store: where features are; ``None`` where the topology looks up none.
        prefixes: prediction id prefixes by slot number, see `streamml.engine.assignment.SlotNames`.
        max_prediction_bytes: a larger prediction becomes a dead letter.
        revision: 0 live, a replay's number otherwise.
        around: what each operator is exchanged for.
    """
    cut = plan_of(topology, models)
    passed_on = {HEADERS} if topology.sink.headers else set()
    if reads_keys(topology):
        passed_on.add(KEY)
    signatures = {name: model.signature for name, model in models.items()}
    made = {name for step in topology.steps for name in outputs_of(step, signatures.get(step.name))}
    of_record = frozenset((cut.decoded | passed_on) - made)
    operators = [[_operator(step, topology, models, store) for step in stage.steps] for stage in cut.stages]
    operators[0].insert(0, _decode(topology, cut, prefixes, revision))
    operators[-1].append(_encode(topology, models, prefixes, max_prediction_bytes, revision))
    return [
        Stage([around(operator) for operator in group], stage.keep | frozenset(passed_on), of_record)
        for group, stage in zip(operators, cut.stages, strict=True)
    ]


def engine_config(
    topology: Topology,
    models: Mapping[str, Model],
    settings: WorkerSettings,
    worker: str,
    costs: Costs | None = None,
    *,
    max_log_bytes: int = 1_000_000,
) -> EngineConfig:
    """What the engine decides by.

    Args:
        costs: what batches take, as far as it was measured.
        max_log_bytes: the largest record that the topic of the feature log takes.
    """
    letters = topology.dead_letters
    return EngineConfig(
        stages=tuple(_policy(stage, topology, models, costs or {}) for stage in plan_of(topology, models).stages),
        prediction_topic=topology.destination,
        dead_letter_topic=letters.topic,
        dead_letter_limit=DeadLetterLimit(letters.max_ratio, letters.min_sample),
        budget=Budget(settings.max_in_flight_rows, settings.max_in_flight_mb * 1_000_000),
        max_outbound_bytes=settings.max_in_flight_mb * 1_000_000,
        exactly_once=settings.processing_guarantee == "exactly_once",
        ordered=topology.sink.order == "partition",
        commit_interval_s=settings.commit_interval_ms / 1000,
        worker=worker,
        feature_log=_log(topology, max_log_bytes),
    )


def log_schema(topology: Topology) -> LogSchema | None:
    """What its feature log holds; ``None`` where it has none."""
    return None if topology.feature_log is None else LogSchema(topology.feature_columns)


def _log(topology: Topology, max_bytes: int) -> LogConfig | None:
    if topology.feature_log is None:
        return None
    return LogConfig(topology.feature_log.topic, LogSchema(topology.feature_columns), max_bytes)


def _policy(stage: StagePlan, topology: Topology, models: Mapping[str, Model], costs: Costs) -> BatchPolicy:
    step = next((step for step in stage.steps if isinstance(step, ModelStep) and step.batching.latency_budget), None)
    budget = None
    if step is not None and step.batching.latency_budget is not None:
        budget = LatencyBudget(
            seconds(step.batching.latency_budget),
            born=topology.source.event_time if step.batching.budget_from == "event" else None,
            on_late=step.batching.on_late,
            step=step.name,
            model=f"{step.name}@{models[step.name].version}",
            measured=costs.get(step.name, {}),
        )
    explodes = any(isinstance(one, Explode) for one in stage.steps)
    return BatchPolicy(stage.max_rows, explodes, budget, () if explodes else _rungs(stage, models))


def _rungs(stage: StagePlan, models: Mapping[str, Model]) -> tuple[int, ...]:
    """The sizes that the first model of a stage is run at, as far as its batches reach."""
    first = next((models[step.name] for step in stage.steps if isinstance(step, ModelStep)), None)
    return () if first is None else tuple(rung for rung in rungs_of(first) if rung <= stage.max_rows)


def guarantee_problems(topology: Topology, settings: WorkerSettings) -> list[str]:
    """Why the sink cannot keep the processing guarantee."""
    if settings.processing_guarantee != "exactly_once":
        return []
    if isinstance(topology.sink, RedisSink):
        return [
            'processing_guarantee is "exactly_once", which is of what is written to Kafka, and the sink is a RedisSink: '
            "predictions are in no transaction. Process at least once: Redis holds one prediction of a key, and writing it "
            "twice changes nothing."
        ]
    if topology.sink.order != "partition":
        return [
            'processing_guarantee is "exactly_once", and the sink\'s order is "none": a transaction is a cut through the '
            'order of each partition. Set Sink(order="partition"), or process at least once.'
        ]
    return []


def reads_keys(topology: Topology) -> bool:
    """Whether anything reads the records' keys."""
    return topology.sink.key is None or topology.source.on_tombstone == "forward"


def needs_features(topology: Topology) -> bool:
    return any(isinstance(step, FeatureLookup) for step in topology.steps)


def _decode(topology: Topology, cut: Plan, prefixes: Sequence[str], revision: int) -> Decode:
    source = topology.source
    decoder = json_decoder(
        Contract.of(source.schema),
        columns=cut.decoded,
        parsing=source.parsing,
        duplicate_keys=source.duplicate_keys,
        max_record_bytes=source.max_record_bytes,
    )
    keyed = isinstance(topology.sink, RedisSink)
    return Decode(decoder, source.on_tombstone, prefixes, revision=revision, keyed=keyed)


def _encode(
    topology: Topology, models: Mapping[str, Model], prefixes: Sequence[str], max_bytes: int, revision: int
) -> Encode:
    sink = topology.sink
    last = next((step for step in reversed(topology.steps) if isinstance(step, ModelStep)), None)
    budget = last.batching.latency_budget if last else None
    by_event = last is not None and last.batching.budget_from == "event"
    config = EncodeConfig(
        key=sink.key,
        headers=sink.headers,
        provenance=sink.provenance,
        model="" if last is None else f"{last.name}@{models[last.name].version}",
        revision=revision,
        latency_budget_s=None if budget is None else seconds(budget),
        born=topology.source.event_time if by_event else None,
        max_bytes=max_bytes,
        logged=log_schema(topology),
        keyed=isinstance(sink, RedisSink),
    )
    return Encode(json_encoder(Contract.of(sink.schema), columns=_fed(topology, models)), prefixes, config)


def _fed(topology: Topology, models: Mapping[str, Model]) -> frozenset[str]:
    """Fields of a prediction that a column feeds; the others are written with their defaults."""
    from streamml.topology.check import columns_after

    flow, _ = columns_after(topology, len(topology.steps), {name: model.signature for name, model in models.items()})
    provenance = PROVENANCE_FIELDS.keys() if topology.sink.provenance == "fields" else set()
    return frozenset(topology.sink.schema.model_fields.keys() & (flow.keys() | provenance))


def _operator(step: Step, topology: Topology, models: Mapping[str, Model], store: FeatureStore | None) -> Operator:
    match step:
        case FeatureLookup():
            assert store is not None
            return LookUp(step.name, step.sets, store, topology.source.event_time)
        case Transform():
            return ApplyTransform(step)
        case Filter():
            return ApplyFilter(step, log_schema(topology))
        case Explode():
            return ApplyExplode(step, log_schema(topology))
        case Onnx() | Python() | Torch():
            model = models[step.name]
            inputs = {name: step.feeds.get(name, name) for name in model.signature.inputs}
            return RunModel(model, inputs, step.picks)
