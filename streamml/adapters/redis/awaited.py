"""Calls that wait for Redis, awaited in asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from streamml.errors import ConfigError

P = ParamSpec("P")
T = TypeVar("T")


class Awaited:
    """Runs calls on threads of its own, a bounded number at a time; more wait in their ``await``, so that nothing piles up."""

    def __init__(self, name: str, waiting: int, threads: int) -> None:
        """
        Args:
            name: of the threads.
            waiting: calls that may be under way.
            threads: calls that run at once; with one they run in their order.

        Raises:
            ConfigError: ``waiting`` is below 1.
        """
        if waiting < 1:
            raise ConfigError(f"waiting is {waiting}; it has to be 1 or more.")
        self._threads = ThreadPoolExecutor(threads, name)
        self._room = asyncio.Semaphore(waiting)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``function`` returns or raises. One that is cancelled while it is under way does its work all the same."""
        await self._room.acquire()
        try:
            running = asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, **kwargs))
        except BaseException:
            self._room.release()
            raise
        # Not when the caller is gone: with a time limit around each call, what threads have not come to yet would pile up.
        running.add_done_callback(lambda _: self._room.release())
        return await asyncio.shield(running)

    async def close(self, last: Callable[[], Any]) -> None:
        """Finish the calls that are under way, then do the last thing."""
        await asyncio.to_thread(self._threads.shutdown)
        last()
