"""Finds out whether Redis is a cluster, and which of its nodes has which slot."""

from __future__ import annotations

import random
import threading

from redis.exceptions import RedisError, ResponseError

from streamml.adapters.redis.connection import Server, pack
from streamml.adapters.redis.slots import Address, Slots
from streamml.errors import ConfigError, FeatureStoreDown


class Discovery:
    """What was last heard of the slots. Threads may share it; one of them asks, the others wait for its answer.

    `redis.cluster.NodesManager` finds out the same, but asks as it is made, and makes a client with a pool of its own for each node.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._suspects: set[Address | None] = set()
        self._slots: Slots | None = None
        self._known = False
        self._lock = threading.Lock()

    @property
    def clustered(self) -> bool:
        """Whether this is known to be a cluster."""
        return self._slots is not None

    def slots(self) -> Slots | None:
        """Who has which slot; ``None``: this is a server by itself. Asks only where nothing is known, or it was forgotten.

        Raises:
            FeatureStoreDown: no node says.
            ConfigError: several hosts are named, and one of them is no node of a cluster.
        """
        if not self._known:
            with self._lock:
                if not self._known:
                    self._learn()
        return self._slots

    def forget(self, suspect: Address | None = None) -> None:
        """It is no longer so; ``suspect`` is asked last."""
        self._known = False
        if suspect is not None:
            self._suspects.add(suspect)

    def _learn(self) -> None:
        """Ask one node after another, until one knows an owner for every slot."""
        best: Slots | None = None
        failed: FeatureStoreDown | None = None
        for address, server in self._asked_in_turn():
            try:
                slots = self._heard(server)
            except FeatureStoreDown as error:
                failed = error
                self._suspects.add(address)
                continue
            self._suspects.discard(address)
            if slots is None:
                best = None
                break
            best = max(best or slots, slots, key=lambda one: len(one.owners) - one.owners.count(None))
            if None not in best.owners:
                break
        else:
            if best is None:
                assert failed is not None
                raise failed
        self._slots, self._known = best, True

    def _asked_in_turn(self) -> list[tuple[Address | None, Server]]:
        named: list[tuple[Address | None, Server]] = [(None, one) for one in self._server.named]
        if self._slots is None:
            return named
        known = [(one, self._server.at(one)) for one in (*self._slots.masters, *self._slots.replicas)]
        random.shuffle(known)
        return sorted([*known, *named], key=lambda one: one[0] in self._suspects)

    def _heard(self, server: Server) -> Slots | None:
        """What one node says of the slots; ``None``: there are none."""
        session = server.connect()
        try:
            session.send(pack("HELLO"))
            [hello] = session.read_many(1)
            # An old server does not know the command, and a narrow rule may not permit it: such a one is by itself.
            if isinstance(hello, RedisError) and not isinstance(hello, ResponseError):
                raise server.unavailable(hello)
            mode = dict(zip(hello[::2], hello[1::2], strict=True)).get(b"mode") if isinstance(hello, list) else None
            if mode == b"cluster":
                if not server.host:
                    raise ConfigError(f"Redis at {server.where} is a node of a cluster; name it by host and port.")
                return Slots.read(session.call("CLUSTER", "SLOTS"), server.host)
        finally:
            session.close()
        if len(self._server.named) > 1:
            raise ConfigError(
                f"Several hosts of Redis are named, which a Redis Cluster has, and {server.where} is a server by itself; name one."
            )
        return None
