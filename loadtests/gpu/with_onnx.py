"""ONNX Runtime: the network of `loadtests.baseline` by each provider that this build has."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from loadtests.gpu.drains import BASELINE_MODELS, drained, figures, latencies
from loadtests.gpu.jobs import dense_job
from streamml.adapters.models.onnx import OnnxModel
from streamml.adapters.models.onnx_session import OnnxSettings
from streamml.adapters.models.padded import PaddedModel
from streamml.adapters.models.repository import find
from streamml.adapters.models.warm_up import warm_up
from streamml.engine.cost import ladder
from streamml.errors import ConfigError

_MOST: Final = 2048
_EVENTS: Final = 200_000


def measured(seconds: float, tell: Callable[[str], None]) -> dict[str, Any]:
    """Figures by provider, CUDA with graphs and without; a sentence for one that this build has not."""
    found: dict[str, Any] = {}
    rungs = tuple(ladder(_MOST))
    for name, settings in (
        ("cpu", OnnxSettings()),
        ("cuda", OnnxSettings(("cuda", "cpu"), captured=rungs)),
        ("cuda, no graphs", OnnxSettings(("cuda", "cpu"))),
        ("tensorrt", OnnxSettings(("tensorrt", "cuda", "cpu"))),
    ):
        tell(f"ONNX Runtime: {name}")
        try:
            found[name] = _with_settings(settings, () if name == "cpu" else rungs, seconds)
        except ConfigError as error:
            found[name] = {"failed": " ".join(error.problems)}
    return found


def _with_settings(settings: OnnxSettings, rungs: tuple[int, ...], seconds: float) -> dict[str, Any]:
    model = PaddedModel(OnnxModel.load(find(BASELINE_MODELS, "mlp", None), settings), rungs)
    warm_up(model, rungs or (1, _MOST), repeats=1)
    (given,) = model.signature.inputs.values()
    job = replace(dense_job("mlp", tuple(size or 1 for size in given.shape), _MOST), signature=model.signature)
    batch = {job.input: job.inputs(np.arange(_MOST))}
    model.run(batch)
    began, passes = time.perf_counter(), 0
    while time.perf_counter() - began < seconds / 3:
        model.run(batch)
        passes += 1
    raw = passes * _MOST / (time.perf_counter() - began)
    run = drained(job, model, _EVENTS)
    late = latencies(job, model, min(run.rows_per_s / 2, 20_000.0), seconds)
    model.close()
    return figures(raw, run, late)
