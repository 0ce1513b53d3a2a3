"""Reads the latest predictions that a topology with ``latest=sm.RedisSink(…)`` keeps in Redis.

::

    from streamml.latest import LatestPredictions

    with LatestPredictions("arrivals", url="redis://127.0.0.1:6379") as latest:
        found = latest.get("UA1545")
        if found is not None and found.value is not None:
            prediction = json.loads(found.value)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from streamml.adapters.redis.awaited import Awaited
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.latest import Latest, latest_keys, unpacked
from streamml.adapters.redis.nodes import Nodes
from streamml.errors import ConfigError
from streamml.topology.sentences import latest_name_problem

__all__ = ["AsyncLatestPredictions", "Latest", "LatestPredictions"]


class LatestPredictions:
    """Latest predictions by key. Threads may share it.

    Args:
        name: of the `RedisSink`.
        url: Redis, as the workers'.
        timeout_s: how long to wait for a connection, or for any reply.
        options: further arguments of a redis-py connection.

    Raises:
        ConfigError: the name, the URL or an option is not valid. Nothing is connected yet.
    """

    def __init__(
        self, name: str, *, url: str, timeout_s: float = 1.0, options: Mapping[str, Any] | None = None
    ) -> None:
        if wrong := latest_name_problem(name):
            raise ConfigError(wrong)
        self._name = name
        self._nodes = Nodes(Server(url, timeout_s, options))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def get(self, key: str | bytes) -> Latest | None:
        """The latest prediction of a key; ``None``: there is none, or its ttl is over.

        Raises:
            FeatureStoreDown: Redis does not answer.
            ValueError: what is there was not written by a worker, or the text has no UTF-8.
            TypeError: the key is neither text nor bytes.
        """
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[str | bytes]) -> list[Latest | None]:
        """The same for many keys, in one round trip (one to each node of a cluster) and in their order.

        Raises:
            FeatureStoreDown, ValueError, TypeError: as `get`; a text in place of keys is one, too.
        """
        if isinstance(keys, (str, bytes)):
            raise TypeError(f"get_many takes a sequence of keys, and {keys!r:.50} is one key; ask for it by get.")
        if others := [key for key in keys if not isinstance(key, (str, bytes))]:
            raise TypeError(f"A key is text or bytes, as the prediction's; {others[0]!r:.50} is neither.")
        if not keys:
            return []
        as_bytes = [key.encode() if isinstance(key, str) else key for key in keys]
        stored = self._nodes.mget(latest_keys(self._name, as_bytes))
        return [None if one is None else _read(key, one) for key, one in zip(as_bytes, stored, strict=True)]

    def close(self) -> None:
        """Close the connections."""
        self._nodes.close()


class AsyncLatestPredictions:
    """`LatestPredictions` for asyncio: the same calls, awaited. Threads of its own wait for Redis.

    Args:
        waiting: calls that may be under way, each on a thread; more wait in their ``await``.
    """

    def __init__(self, name: str, *, waiting: int = 8, **settings: Any) -> None:
        """
        Args:
            settings: as `LatestPredictions` takes them.

        Raises:
            ConfigError: as `LatestPredictions`, or ``waiting`` is below 1.
        """
        self._calls = Awaited(f"streamml-latest-{name}", waiting, threads=waiting)
        self._predictions = LatestPredictions(name, **settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def get(self, key: str | bytes) -> Latest | None:
        """See `LatestPredictions.get`."""
        return (await self.get_many([key]))[0]

    async def get_many(self, keys: Sequence[str | bytes]) -> list[Latest | None]:
        """See `LatestPredictions.get_many`."""
        return await self._calls.call(self._predictions.get_many, keys)

    async def close(self) -> None:
        """Finish the calls that are under way and close the connections."""
        await self._calls.close(self._predictions.close)


def _read(key: bytes, stored: bytes) -> Latest:
    try:
        return unpacked(stored)
    except ValueError as error:
        raise ValueError(f"Under the key {key!r:.200} no worker has written: {error}") from error
