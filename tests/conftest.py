"""A real broker and a real Redis for the tests of one session."""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import Phase, settings
from xdist.scheduler import LoadFileScheduling

from loadtests.redis_cluster import RedisCluster
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis

pytest.register_assert_rewrite("tests.conformance.sink_behaviours", "tests.conformance.source_behaviours")
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


def pytest_configure(config: pytest.Config) -> None:
    """Whoever ends a process of xdist from within, or by a signal, shows where: xdist can only say that it is gone."""
    if not hasattr(config, "workerinput"):
        return
    # Here nothing is captured yet.
    errors, end = os.dup(2), os._exit

    def shown_end(status: int) -> NoReturn:
        faulthandler.dump_traceback(errors)
        end(status)

    os._exit = shown_end
    for one in (signal.SIGTERM, signal.SIGHUP):
        faulthandler.register(one, errors, chain=True)


class ByServers(LoadFileScheduling):  # type: ignore[misc]
    """A file's tests run in one process, and those of all files that need a broker of their own kind too.

    The process that comes to them first starts that broker; another one would cost more than it gives.
    """

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return (
            "secured"
            if Path(file).stem in {"test_control", "test_faust_login", "test_secrets", "test_security"}
            else file
        )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """By folder, and by chance within one: tests that wait for servers come before those that compute, which end together."""
    items.sort(key=lambda item: item.nodeid.split("/")[:2])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServers:
    """In the order of the collection; xdist would begin with the files of many tests, and end with one that takes a minute."""
    config.option.loadscopereorder = False
    return ByServers(config, log)


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


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """One that the test may stop, kill or fill."""
    server = EmbeddedRedis(tmp_path / "redis")
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
