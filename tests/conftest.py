"""A real broker and a real Redis for the tests of one session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from tests.redis_cluster import RedisCluster

pytest_plugins = ["pytester", "tests.swallowed"]

# Brokers of tests live for seconds: what the better compiler takes of two cores never comes back.
os.environ["JDK_JAVA_OPTIONS"] = "-XX:TieredStopAtLevel=1"
# How long an example takes says more about the machine than about the code.
settings.register_profile("usual", max_examples=50, deadline=None)
settings.load_profile("usual")
# By hand, for hours if need be: pytest tests/property --hypothesis-profile=deep
settings.register_profile("deep", max_examples=5000, stateful_step_count=100, deadline=None)
# For planted mistakes: that there is an example is enough, nobody reads the smallest one; chance must not decide.
settings.register_profile(
    "planted", phases=[Phase.explicit, Phase.generate], max_examples=300, derandomize=True, database=None, deadline=None
)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """Started once; tests use topics and groups of their own."""
    broker = EmbeddedKafka(Path(tmp_path_factory.mktemp("kafka")))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """Started once; tests use feature sets of their own."""
    server = EmbeddedRedis(Path(tmp_path_factory.mktemp("redis")))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Started once; tests use feature sets of their own, and bring back what they kill."""
    cluster = RedisCluster(Path(tmp_path_factory.mktemp("cluster")))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
