"""PyTorch: a raw loop over the model with its data on the device, and the worker with each measure switched off or on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import torch

from loadtests.gpu import nets
from loadtests.gpu.drains import drained, figures, latencies
from loadtests.gpu.jobs import Job, dense_job, text_job
from streamml.adapters.models.padded import PaddedModel
from streamml.adapters.models.torch import TorchModel, TorchSettings
from streamml.adapters.models.warm_up import warm_up
from streamml.batch.column import Array
from streamml.engine.cost import ladder
from streamml.ports.model import Model

_FASTEST_PACED: Final = 20_000.0
_MOST_EVENTS: Final = 400_000


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured.

    Args:
        device: as PyTorch spells it.
        small: networks that a CPU can do.
        seconds: about how long each figure is measured.
        compile: whether `torch.compile` is measured, too.
    """

    device: str
    small: bool
    seconds: float
    compile: bool


@dataclass(frozen=True, slots=True)
class Variant:
    """Measures that are on."""

    rungs: bool
    lengths: bool = True
    graphs: bool = False
    slots: int = 0
    compile: bool = False
    precision: str = "float32"


def variants(job: Job, options: Options) -> dict[str, Variant]:
    """By name; the first has what is on by default, each other one differs by one measure."""
    gpu = options.device != "cpu"
    base = Variant(rungs=gpu, graphs=gpu, slots=2 if gpu else 0)
    found = {"default": base}
    if gpu:
        found |= {"no graphs": replace(base, graphs=False), "no padding": replace(base, rungs=False, graphs=False)}
        found |= {"one slot": replace(base, slots=1), "no ring": replace(base, graphs=False, slots=0)}
    else:
        found |= {"padded to a ladder": replace(base, rungs=True), "ring": replace(base, slots=2)}
    if job.lengths:
        found["no buckets of lengths"] = replace(base, lengths=False)
    if options.compile:
        found["compiled"] = replace(base, compile=True)
    return found | {"bfloat16": replace(base, precision="bfloat16")}


def measured(options: Options, tell: Callable[[str], None]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Figures by network."""
    sizes = nets.SMALL if options.small else nets.Sizes()
    image = (3, sizes.image, sizes.image)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for job, make in (
        (dense_job("perceptron", (sizes.perceptron[0],), 1024 if options.small else 4096), nets.perceptron),
        (text_job("encoder", sizes.vocabulary, sizes.longest, 64 if options.small else 256), nets.Encoder),
        (dense_job("resnet", image, 64 if options.small else 256), nets.resnet),
    ):
        module = make(sizes).eval().requires_grad_(False).to(options.device)
        yield job.name, _of_network(job, module, options, tell)


def _of_network(job: Job, module: Any, options: Options, tell: Callable[[str], None]) -> dict[str, Any]:
    tell(f"{job.name}: sizes of batches")
    found: dict[str, Any] = {
        "parameters": sum(one.numel() for one in module.parameters()),
        "raw_rows_per_s_by_batch": {
            rows: round(_raw(job, module, Variant(False), rows, options)) for rows in ladder(job.most)[::2]
        },
        "variants": {},
    }
    for name, variant in variants(job, options).items():
        tell(f"{job.name}: {name}")
        try:
            found["variants"][name] = asdict(variant) | _of_variant(job, module, variant, options)
        # A variant that this machine or build cannot run is told, and the others go on.
        except Exception as error:  # noqa: BLE001
            found["variants"][name] = asdict(variant) | {"failed": f"{type(error).__name__}: {error}"[:300]}
    return found


def _of_variant(job: Job, module: Any, variant: Variant, options: Options) -> dict[str, Any]:
    scoring = torch.compile(module, dynamic=True) if variant.compile else module
    model = _model(job, scoring, variant, options)
    for length in job.lengths or (1,):
        warm_up(model, model.rungs or (1, job.most), repeats=1, length=length)
    raw = _raw(job, scoring, variant, job.most, options)
    events = int(min(max(raw * options.seconds, 4 * job.most), _MOST_EVENTS))
    run = drained(job, model, events)
    paced = min(run.rows_per_s / 2, _FASTEST_PACED)
    late = latencies(job, model, paced, options.seconds)
    alone = next(iter(warm_up(model, [1], repeats=5, length=(job.lengths or (1,))[0]).values())) * 1e3
    model.close()
    return {
        **figures(raw, run, late),
        "mean_batch": round(run.mean_batch, 1),
        "events": events,
        "paced_at": round(paced),
        "ms_one_row_alone": round(alone, 3),
    }


def _model(job: Job, scoring: Any, variant: Variant, options: Options) -> PaddedModel:
    rungs = tuple(ladder(job.most)) if variant.rungs else ()
    settings = TorchSettings(options.device, captured=rungs if variant.graphs else (), slots=variant.slots)
    model = TorchModel(job.name, "1", job.signature, scoring, settings, variant.precision)
    return PaddedModel(model, rungs, job.lengths if variant.lengths else ())


class _Noting:
    """A model that keeps what it is asked, and answers nothing of worth."""

    def __init__(self, job: Job) -> None:
        self.name, self.version, self.signature = job.name, "1", job.signature
        self.asked: list[Array] = []
        self._answer = next(iter(job.signature.outputs))

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        (column,) = inputs.values()
        self.asked.append(column)
        return {self._answer: np.zeros(len(column), np.float32)}

    def close(self) -> None: ...


def _raw(job: Job, scoring: Any, variant: Variant, rows: int, options: Options) -> float:
    """Rows per second of a loop over the model alone, in the shapes that the worker's batches of ``rows`` rows have."""
    noting: Model = (noted := _Noting(job))
    padded = PaddedModel(noting, ladder(job.most) if variant.rungs else (), job.lengths if variant.lengths else ())
    batches = max(1, min(8, 512 // rows))
    for number in range(batches):
        padded.run({job.input: job.inputs(np.arange(number * rows, (number + 1) * rows))})
    there = [torch.from_numpy(np.array(column)).to(options.device) for column in noted.asked]
    with torch.inference_mode(), _precision(variant, options):
        _once(scoring, there, options)
        began, passes = time.perf_counter(), 0
        while time.perf_counter() - began < options.seconds / 3:
            _once(scoring, there, options)
            passes += 1
        return passes * batches * rows / (time.perf_counter() - began)


def _once(scoring: Any, there: list[Any], options: Options) -> None:
    for tensor in there:
        scoring(tensor)
    if options.device != "cpu":
        torch.cuda.synchronize(options.device)


def _precision(variant: Variant, options: Options) -> AbstractContextManager[Any]:
    if variant.precision == "float32":
        return nullcontext()
    context: AbstractContextManager[Any] = torch.autocast(
        options.device.partition(":")[0], dtype=getattr(torch, variant.precision)
    )
    return context
