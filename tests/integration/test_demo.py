"""The demo's incident, without a terminal, on servers that are there already."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.rehearsal.__main__ import rehearse
from streamml.ops.demo.show import DemoOptions, Show
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis

pytestmark = pytest.mark.integration


@pytest.mark.timeout(240)
def test_an_incident_ends_with_the_predictions_of_a_run_without_one(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """Wrong features go live and back, what was scored meanwhile is replayed and published; nothing wrong is left, nothing lost."""
    options = DemoOptions(events=2_000, rate=25.0, brokers=kafka.bootstrap_servers, redis_url=redis_server.url)
    with Show(options, lambda text: None, page=tmp_path / "page.html") as show:
        told = rehearse(show, lambda text: None, seconds=0.5)
    compared, referee = told["compared"], told["referee"]
    assert told["passed"]
    assert compared["changed"] > 0
    assert compared["missing"] == compared["extra"] == 0
    assert referee["corrected"] == told["published"]["written"] == compared["changed"]
    assert (referee["lost"], referee["wrong"]) == (0, 0)
    assert "<svg" in (tmp_path / "page.html").read_text()
