"""Models for a topology under test: plain functions where the test gives some, else those of the repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from streamml.adapters.memory.model import FunctionModel
from streamml.adapters.models.tensors import NUMPY
from streamml.batch.column import Array, ColumnType
from streamml.compose.models import check, load_model
from streamml.errors import ConfigError, TopologyError
from streamml.ports.model import Model, Signature, Tensor
from streamml.schema.contract import Contract
from streamml.settings.settings import ModelSettings
from streamml.topology.check import columns_after, outputs_of
from streamml.topology.check_models import Flow
from streamml.topology.model_steps import ModelStep
from streamml.topology.topology import Topology

StandIn = Callable[[Mapping[str, Array]], Mapping[str, ArrayLike]]
"""A function from a model's inputs, arrays ``[n, *row shape]`` by name, to its outputs, anything numpy takes as such."""

_TENSOR_OF: Final = {"bool": "bool", "i4": "int32", "i8": "int64", "f4": "float32", "f8": "float64", "text": "text"}


def models_of(topology: Topology, given: Mapping[str, Model | StandIn], repository: Path) -> dict[str, Model]:
    """All models that the topology names.

    Args:
        given: by name, models or functions; see `function_model`.
        repository: where the others are.

    Raises:
        TopologyError: the topology is wrong, a model is missing or does not fit, or ``given`` names one that no step does.
    """
    steps = [(place, step) for place, step in enumerate(topology.steps) if isinstance(step, ModelStep)]
    names = {step.name for _, step in steps}
    wrong = [
        f"The test gives a model {name!r}, which no step names; there are {', '.join(sorted(names)) or 'none'}."
        for name in given
        if name not in names
    ]
    models: dict[str, Model] = {}
    for place, step in steps:
        if step.name in models:
            continue
        own = given.get(step.name)
        try:
            if own is None:
                models[step.name] = load_model(step, repository, ModelSettings())
            elif callable(own):
                models[step.name] = function_model(topology, place, own, models)
            else:
                models[step.name] = own
        except ConfigError as error:
            wrong += error.problems
    check(topology, models, wrong)
    return models


def function_model(topology: Topology, place: int, function: StandIn, before: Mapping[str, Model]) -> Model:
    """A model out of a function, with the signature that the topology asks for.

    The function gets the inputs that the step names, or, where it names none, what the step before it makes. What it
    returns is taken as the type of the prediction's field of that name, else as float32.

    Args:
        place: index of the step.
        before: models of earlier steps.
    """
    step = topology.steps[place]
    assert isinstance(step, ModelStep)
    signature = step.declared or Signature(_inputs(topology, place, step, before), _outputs(topology, step))

    def typed(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        answer = function(inputs)
        return {name: _as(answer[name], signature.outputs.get(name)) for name in answer}

    return FunctionModel(step.name, step.version or "test", signature, typed)


def _as(answer: ArrayLike, tensor: Tensor | None) -> Array:
    return np.asarray(answer) if tensor is None else np.asarray(answer, NUMPY[tensor.dtype])


def _inputs(topology: Topology, place: int, step: ModelStep, before: Mapping[str, Model]) -> dict[str, Tensor]:
    signatures = {name: model.signature for name, model in before.items()}
    flow, _ = columns_after(topology, place, signatures)
    named = step.feeds or {name: name for name in _made_before(topology, place, flow, signatures)}
    found = {name: _tensor(flow.get(column)) for name, column in named.items()}
    inputs = {name: tensor for name, tensor in found.items() if tensor is not None}
    if not inputs:
        raise TopologyError(
            f"Nothing before the model {step.name!r} makes a column that it could read; name its inputs by inputs=."
        )
    return inputs


def _made_before(topology: Topology, place: int, flow: Flow, signatures: Mapping[str, Signature]) -> list[str]:
    """Columns of the nearest earlier step that makes any; of the event where none does."""
    for step in reversed(topology.steps[:place]):
        made = outputs_of(step, signatures.get(step.name))
        if made:
            return list(made)
    return list(flow)


def _tensor(column: ColumnType | None) -> Tensor | None:
    """How a model takes a column; ``None`` where none can."""
    if column is None or column.nullable or column.kind not in _TENSOR_OF:
        return None
    return Tensor(_TENSOR_OF[column.kind], column.shape)


def _outputs(topology: Topology, step: ModelStep) -> dict[str, Tensor]:
    fields = Contract.of(topology.sink.schema).columns
    outputs: dict[str, Tensor] = {}
    for column, output in step.picks.items():
        tensor = _tensor(fields.get(column)) or Tensor("float32", ())
        outputs[output.tensor] = tensor if output.column is None else Tensor(tensor.dtype, (None,))
    return outputs
