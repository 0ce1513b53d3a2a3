"""A secured broker for the tests of one session that need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.secured import Secured


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Started once; tests use topics, groups and rights of their own."""
    found = Secured(Path(tmp_path_factory.mktemp("secured")))
    yield found
    found.stop()
