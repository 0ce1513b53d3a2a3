"""The Faust app hears that it is to end, whatever comes at the same moment."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from streamml.ports.source import RawRecord
from topologies.flight_delay.features_app import App, _until

RECORD = RawRecord(None, b"x", [], 0)


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_l3_a_record_that_comes_as_the_app_is_to_end_does_not_keep_it(turns: int) -> None:
    """L3.1."""

    async def ends_as_a_record_comes() -> bool:
        app: Any = object.__new__(App)
        app._inbox = asyncio.Queue()
        heard = asyncio.create_task(app._heard())
        await asyncio.sleep(0)
        app._inbox.put_nowait((0, RECORD))
        for _ in range(turns):
            await asyncio.sleep(0)
        heard.cancel()
        await asyncio.wait([heard], timeout=5)
        return heard.cancelled()

    assert asyncio.run(ends_as_a_record_comes())


def test_l3_the_app_ends_though_one_of_its_tasks_forgets_that_it_was_cancelled() -> None:
    """L3.1."""

    async def deaf() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    async def commit() -> None: ...

    async def ends() -> None:
        stopped = asyncio.Event()
        stopped.set()
        app: Any = SimpleNamespace(follow=deaf, commit=commit, faust=SimpleNamespace(wait_until_stopped=deaf))
        async with asyncio.timeout(10):
            await _until(stopped, app, 0.01)

    asyncio.run(ends())
