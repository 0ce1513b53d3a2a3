"""A `sm.Python` step in a real worker: a model that crashes its process, and rows that it gives up on."""

from __future__ import annotations

from pathlib import Path

import pytest

import streamml as sm
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from tests.conformance.python_factories import doubles_amounts
from tests.integration.scoring import Job, Payment, Score, payment

pytestmark = pytest.mark.integration


class PythonJob(Job):
    @property
    def topology(self) -> sm.Topology:
        model = sm.Python(
            doubles_amounts,  # type: ignore[arg-type]
            inputs={"amount": "f8"},
            outputs={"score": "f8"},
            version="7",
            batching=sm.Batching(max_batch_size=8),
            isolation="process",
        )
        return sm.Topology(
            self.name,
            source=sm.Source(f"{self.name}.in", schema=Payment, start="earliest"),
            steps=[model],
            sink=sm.Sink(f"{self.name}.out", schema=Score, key="id"),
            dead_letters=sm.DeadLetterQueue(f"{self.name}.dlq", max_ratio=0.9),
        )


def test_e2_row_that_crashes_the_models_process_is_a_dead_letter_and_the_worker_lives(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """E2: its neighbours are scored, and rows that the function gives up on leave with its reason."""
    job = PythonJob(kafka.bootstrap_servers, redis_server.url, tmp_path)
    job.create()
    job.produce([payment(number) for number in range(20)])
    summary = job.run()
    assert (summary["predictions"], summary["dead_letters"]) == (18, 2)
    predictions = job.predictions()
    assert {name: score for name, (score, _) in predictions.items()} == {
        f"p{number}": 2.0 * (1 + number) for number in range(20) if number not in (4, 7)
    }
    assert {mark.model for _, mark in predictions.values()} == {"doubles_amounts@7"}
    said = sorted(message for _, _, message in job.letters())
    assert said == ["Five is no amount.", "The process of model doubles_amounts@7 ended by SIGSEGV on these rows."]
