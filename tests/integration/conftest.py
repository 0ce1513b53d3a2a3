"""A secured broker for the tests of one session that need one, and an end for what others leave open."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.integration.secured import Secured


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Started once; tests use topics, groups and rights of their own."""
    found = Secured(Path(tmp_path_factory.mktemp("secured")))
    yield found
    found.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Collect what a test leaves behind only once its records in the log, which hold it by their errors, are gone as well.

    Left alone, it would warn in the middle of some other test.
    """
    try:
        return (yield)
    finally:
        if item.get_closest_marker("leaves_connections"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
