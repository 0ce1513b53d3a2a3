"""The demo, without a terminal, on servers that are there already."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from streamml.ops.demo.show import DemoOptions, Show
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis

pytestmark = pytest.mark.integration


@pytest.mark.timeout(240)
def test_an_incident_ends_with_the_predictions_of_a_run_without_one(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """Wrong features go live and back, what was scored meanwhile is replayed and published; nothing wrong is left, nothing lost."""
    options = DemoOptions(
        events=4000, rate=300.0, faults=("features",), brokers=kafka.bootstrap_servers, redis_url=redis_server.url
    )
    with Show(options, lambda text: None, page=tmp_path / "page.html") as show:
        show.start()
        while not show.over:
            show.tick()
            time.sleep(0.1)
        told = show.finish()
    counts, referee = told["incident"]["compared"]["counts"], told["referee"]
    assert counts["changed"] > 0
    assert counts["missing"] == counts["extra"] == 0
    assert referee["corrected"] == told["incident"]["published"]["written"] == counts["changed"]
    assert (referee["predicted"], referee["lost"], referee["wrong"]) == (4000, 0, 0)
    assert "<svg" in (tmp_path / "page.html").read_text()
