"""A process that the demo keeps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import pytest

from streamml.ops.demo.kept import Kept


@pytest.fixture
def kept() -> Iterator[Kept]:
    made = Kept([sys.executable, "-c", "import signal; signal.pause()"], {})
    made.thread.start()
    yield made
    made.stop()


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_what_is_killed_is_started_again_until_it_is_stopped(kept: Kept) -> None:
    for number in (1, 2, 3):
        until(lambda number=number: kept.starts == number)  # type: ignore[misc]
        kept.kill()
    until(lambda: kept.starts == 4)
    kept.stop()
    assert not kept.thread.is_alive()
    assert kept.starts == 4
