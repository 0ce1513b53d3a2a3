"""A real broker for the tests of one session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamml.ops.embedded.kafka import EmbeddedKafka


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """Started once; tests use topics and groups of their own."""
    broker = EmbeddedKafka(Path(tmp_path_factory.mktemp("kafka")))
    broker.start()
    yield broker
    broker.stop()
