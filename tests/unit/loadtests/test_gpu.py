"""The worker of `loadtests.gpu` between ends in memory; PyTorch is not needed for that."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from loadtests.gpu.drains import drained, latencies
from loadtests.gpu.jobs import Job, dense_job, text_job
from streamml.adapters.memory.model import FunctionModel
from streamml.adapters.models.padded import PaddedModel
from streamml.batch.column import Array


def model_of(job: Job, asked: list[tuple[int, ...]]) -> PaddedModel:
    def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        asked.append(inputs["x"].shape)
        return {"y": inputs["x"].sum(axis=1).astype(np.float32)}

    return PaddedModel(FunctionModel(job.name, "1", job.signature, run), (1, 16, 64), job.lengths)


def test_a_backlog_of_rows_and_one_of_texts_is_drained_in_the_shapes_of_the_ladder() -> None:
    for job in (dense_job("rows", (3,), 64), text_job("texts", 100, 64, 64)):
        asked: list[tuple[int, ...]] = []
        found = drained(job, model_of(job, asked), 2_000)
        assert found.rows_per_s > 0
        assert 0 < found.in_model <= 1
        assert {shape[0] for shape in asked} <= {1, 16, 64}
        assert {shape[1] for shape in asked} <= set(job.lengths or (3,))


def test_latencies_count_from_when_an_event_was_due() -> None:
    job = dense_job("rows", (3,), 64)
    found = latencies(job, model_of(job, []), rate=500.0, seconds=0.4)
    assert len(found) == 160
    assert (found > 0).all()
