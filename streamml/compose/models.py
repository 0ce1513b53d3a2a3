"""The models of a topology: found, vouched for, loaded, warmed; every problem at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from streamml.adapters.models.padded import PaddedModel
from streamml.engine.cost import ladder
from streamml.errors import ConfigError, ModelRejected, StreamMLError, TopologyError
from streamml.ports.model import Model
from streamml.settings.settings import ModelSettings
from streamml.topology.check import problems
from streamml.topology.check_models import own_problems
from streamml.topology.model_steps import ModelStep, Onnx, Python, Torch
from streamml.topology.topology import Topology

_LOG: Final = logging.getLogger("streamml.models")


def load_models(topology: Topology, repository: Path, settings: ModelSettings) -> dict[str, Model]:
    """Models by name, warm.

    Raises:
        TopologyError: with every problem of the topology, and of the models that it names. None is left open.
    """
    models, wrong = find_models(topology, repository, settings)
    if wrong:
        close_all(models)
        raise TopologyError(wrong)
    return models


def find_models(topology: Topology, repository: Path, settings: ModelSettings) -> tuple[dict[str, Model], list[str]]:
    """The models that can be loaded, by name, warm; and every problem of the topology and of the models that it names."""
    models: dict[str, Model] = {}
    wrong: list[str] = []
    try:
        for step in topology.steps:
            if not isinstance(step, ModelStep) or step.name in models:
                continue
            if isinstance(step, Python) and any(own_problems(step)):
                continue
            try:
                models[step.name] = load_model(step, repository, settings)
            except ConfigError as error:
                wrong += error.problems
        signatures = {name: model.signature for name, model in models.items()}
        return models, [*problems(topology, signatures), *wrong, *warm(topology, models)]
    except BaseException:
        close_all(models)
        raise


def load_model(step: ModelStep, repository: Path, settings: ModelSettings) -> Model:
    """The model of one step, loaded and not yet warm; it pads its batches where the step or the device asks for that.

    Raises:
        ConfigError: it cannot be; with every problem that could be found.
    """
    model = _opened(step, repository, settings)
    rungs = _rungs(step, settings)
    takes_any_length = any(None in tensor.shape for tensor in model.signature.inputs.values())
    return PaddedModel(model, rungs, step.batching.lengths) if rungs or takes_any_length else model


def rungs_of(model: Model) -> tuple[int, ...]:
    """The only numbers of rows that a model sees, ascending; empty: any."""
    return model.rungs if isinstance(model, PaddedModel) else ()


def _rungs(step: ModelStep, settings: ModelSettings) -> tuple[int, ...]:
    most, wanted = step.batching.max_batch_size, step.batching.ladder
    if most < 1:
        return ()
    if wanted is not None:
        return tuple(sorted({1, *wanted, most}))
    return tuple(ladder(most)) if _made_for_shapes(step, settings) else ()


def _made_for_shapes(step: ModelStep, settings: ModelSettings) -> bool:
    """Whether a new number of rows costs the model a compilation, a capture or a search for kernels."""
    match step:
        case Onnx():
            return settings.providers != ("cpu",)
        case Torch():
            return "cuda" in settings.providers and (settings.cuda_graphs or step.compile)
        case Python():
            return False


def _opened(step: ModelStep, repository: Path, settings: ModelSettings) -> Model:
    if isinstance(step, Python):
        from streamml.adapters.models.python import PythonModel

        return PythonModel.load(step)
    from streamml.adapters.models.repository import find

    captured = _rungs(step, settings) if settings.cuda_graphs else ()
    if isinstance(step, Torch):
        from streamml.adapters.models.torch import TorchModel, TorchSettings

        device = f"cuda:{settings.device}" if "cuda" in settings.providers else "cpu"
        return TorchModel.load(step, repository, TorchSettings(device, settings.threads, captured))
    from streamml.adapters.models.onnx import OnnxModel
    from streamml.adapters.models.onnx_session import OnnxSettings

    onnx = OnnxSettings(
        tuple(settings.providers),
        settings.threads,
        device=settings.device,
        captured=captured,
        lengths=step.batching.lengths,
    )
    return OnnxModel.load(find(repository, step.name, step.version), onnx)


def close_all(models: Mapping[str, Model]) -> None:
    for model in models.values():
        model.close()


def check(topology: Topology, models: Mapping[str, Model], wrong: list[str] | None = None) -> None:
    """Hold the topology against itself and against its models' signatures.

    Raises:
        TopologyError: with every problem.
    """
    found = [*problems(topology, {name: model.signature for name, model in models.items()}), *(wrong or [])]
    if found:
        raise TopologyError(found)


def warm(topology: Topology, models: Mapping[str, Model]) -> list[str]:
    """Run every model on made-up rows, so that the first real batch is as quick as the others; says which do not run."""
    from streamml.adapters.models.warm_up import warm_up

    found: list[str] = []
    for step in topology.steps:
        if not isinstance(step, ModelStep) or step.name not in models or step.batching.max_batch_size < 1:
            continue
        if isinstance(step, Python) and not step.warm_up:
            continue
        most, model = step.batching.max_batch_size, models[step.name]
        sizes = rungs_of(model) or (min(2, most), min(64, most), most)
        try:
            for length in step.batching.lengths or (1,):
                warm_up(model, sizes, repeats=1, length=length)
        except ModelRejected as error:
            _LOG.info("Model %s does not take made-up rows, so its first batch will be slow: %s", step.name, error)
        except StreamMLError as error:
            found.append(f"Model {step.name} does not run at the size of a batch, {most} rows: {error}")
    return found
