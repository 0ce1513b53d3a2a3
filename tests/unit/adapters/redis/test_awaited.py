"""Calls on threads of their own, awaited."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streamml.adapters.redis.awaited import Awaited
from streamml.errors import ConfigError


def test_calls_whose_callers_give_up_still_take_room_until_they_are_done() -> None:
    """Otherwise a caller with a time limit would pile up work while Redis is away."""
    going_on, done = threading.Event(), list[int]()

    def work(number: int) -> None:
        going_on.wait()
        done.append(number)

    async def ask() -> list[int]:
        calls = Awaited("calls", waiting=2, threads=1)
        tasks = [asyncio.ensure_future(calls.call(work, number)) for number in range(5)]
        try:
            await asyncio.wait(tasks, timeout=0.05)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            late = asyncio.ensure_future(calls.call(work, 5))
            await asyncio.wait([late], timeout=0.05)
            assert done == []
        finally:
            going_on.set()
        await late
        await calls.close(lambda: None)
        return done

    assert asyncio.run(ask()) == [0, 1, 5]


def test_a_call_after_the_end_takes_no_room_and_says_so() -> None:
    async def ask() -> None:
        calls = Awaited("calls", waiting=1, threads=1)
        await calls.close(lambda: None)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="after shutdown"):
                await calls.call(int)

    asyncio.run(asyncio.wait_for(ask(), 10))


def test_calls_that_may_be_under_way_are_at_least_one() -> None:
    with pytest.raises(ConfigError, match="waiting is 0"):
        Awaited("calls", waiting=0, threads=1)
