"""All nodes of one Redis: a server by itself, or the masters of a Redis Cluster. Which one it is, the first answer says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, TypeVar

from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisError,
    TryAgainError,
)

from streamml.adapters.redis.connection import Reply, Server, Session, SlotMoved, pack
from streamml.adapters.redis.discovery import Discovery
from streamml.adapters.redis.pool import Pool
from streamml.adapters.redis.slots import Address, places_by_slot
from streamml.errors import FeatureStoreDown

_Result = TypeVar("_Result")
# Places of commands by the node that they are sent to (``None``: the server by itself), and whether its slot is only about to move there.
_Trips = dict[tuple[Address | None, bool], list[int]]
_ASKING: Final = pack("ASKING")
# A key is sent on once, or twice where a node heard of a move late; keys that are just moving are waited for.
_ATTEMPTS: Final = 10
_WAIT_S: Final = 0.02
_SCAN: Final = 1000


class Nodes:
    """What is asked instead of a connection. Threads may share it; nothing is connected before the first call.

    A cluster's slots are learned from any of its nodes, and anew after a node failed or sent a key on. A call to a node that is
    gone fails; the first one after its replica took over does not.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._discovery = Discovery(server)
        self._alone = Pool(server)
        self._pools: dict[Address | None, Pool] = {None: self._alone}

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of these keys; of a server by itself as they are at one moment.

        Raises:
            FeatureStoreDown: a node does not answer, or answers with an error.
        """
        if self._discovery.slots() is None:
            with self._alone.session() as session:
                values: list[bytes | None] = session.call("MGET", *keys)
                return values
        return self.exchange(keys, [b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key) for key in keys])

    def exchange(self, keys: Sequence[bytes], packed: Sequence[bytes]) -> list[Reply]:
        """The reply to each packed command, in one round trip to each node: all are sent before any reply is read.

        Args:
            keys: of each command its key, or one of its keys, which have to be of one slot.

        Raises:
            FeatureStoreDown: a node does not answer, or answers with an error. Other commands may be done or not.
        """
        replies: list[Reply] = [None] * len(packed)
        trips = self._owned(keys)
        for attempt in range(_ATTEMPTS):
            if attempt > 1:
                time.sleep(_WAIT_S * attempt)
            trips = self._travel(trips, packed, replies)
            if not trips:
                return replies
        places = next(iter(trips.values()))
        raise self.server.unavailable(replies[places[0]])

    def call(self, key: bytes, *command: bytes | str | int) -> Reply:
        """The reply to one command, which is about this key.

        Raises:
            FeatureStoreDown: the node does not answer, or answers with an error.
        """
        return self.exchange([key], [pack(*command)])[0]

    def at(self, key: bytes, work: Callable[[Session], _Result]) -> _Result:
        """What ``work`` makes of a connection to the node that has this key. It begins anew when the slot moves under it.

        Raises:
            FeatureStoreDown: the node does not answer, or answers with an error.
        """
        for attempt in range(_ATTEMPTS):
            (address, _), *_ = self._owned([key])
            try:
                with self._noticed(address), self._pool(address).session() as session:
                    return work(session)
            except SlotMoved:
                self._discovery.forget()
                if attempt == _ATTEMPTS - 1:
                    raise
            time.sleep(_WAIT_S * attempt)
        raise AssertionError

    def everywhere(self, *command: bytes | str | int) -> list[Reply]:
        """The replies of all nodes to one command.

        Raises:
            FeatureStoreDown: one does not answer, or answers with an error.
        """
        replies = []
        for address in self._masters():
            with self._noticed(address), self._pool(address).session() as session:
                replies.append(session.call(*command))
        return replies

    def scan(self, pattern: bytes) -> Iterator[list[bytes]]:
        """Keys that match, a few at a time, as a server must not be held up.

        Raises:
            FeatureStoreDown: a node does not answer.
        """
        for address in self._masters():
            cursor = b""
            while cursor != b"0":
                with self._noticed(address), self._pool(address).session() as session:
                    cursor, keys = session.call("SCAN", cursor or b"0", "MATCH", pattern, "COUNT", _SCAN)
                if keys:
                    yield keys

    @property
    def clustered(self) -> bool:
        """Whether this is known to be a cluster."""
        return self._discovery.clustered

    def groups(self, keys: Sequence[bytes]) -> list[list[int]]:
        """The places in ``keys`` of those that one command may have together, in their order.

        Raises:
            FeatureStoreDown: no node says whether there are slots.
        """
        # Without asking again: which node has a slot may change, that there are slots does not.
        return places_by_slot(keys) if self.clustered or self._discovery.slots() is not None else [[*range(len(keys))]]

    def close(self) -> None:
        """Close all connections, those in use when their call ends."""
        for pool in list(self._pools.values()):
            pool.close()

    def _owned(self, keys: Sequence[bytes]) -> _Trips:
        """Where commands about these keys are sent first."""
        slots = self._discovery.slots()
        if slots is None:
            return {(None, False): [*range(len(keys))]}
        found = slots.places(keys)
        if None in found:
            self._discovery.forget()
            raise self.server.unavailable(ClusterDownError("no node has the slots of some keys"))
        return {(owner, False): places for owner, places in found.items()}

    def _travel(self, trips: _Trips, packed: Sequence[bytes], replies: list[Reply]) -> _Trips:
        """Fill in the replies; returns where those commands are to be sent that a node has sent on."""
        again: _Trips = {}
        with ExitStack() as held:
            sessions = []
            for (address, asking), places in trips.items():
                prefix = _ASKING if asking else b""
                with self._noticed(address):
                    sessions.append(held.enter_context(self._pool(address).session()))
                    sessions[-1].send(b"".join([prefix + packed[place] for place in places]))
            for session, ((address, asking), places) in zip(sessions, trips.items(), strict=True):
                with self._noticed(address):
                    found = session.read_many(len(places) * (1 + asking))
                if asking and isinstance(found[0], RedisError):
                    raise self._server(address).unavailable(found[0])
                for place, reply in zip(places, found[asking :: 1 + asking], strict=True):
                    replies[place] = reply
                    if isinstance(reply, RedisError):
                        again.setdefault(self._sent_on(reply, address, asking), []).append(place)
        return again

    def _sent_on(self, reply: RedisError, address: Address | None, asking: bool) -> tuple[Address | None, bool]:
        """Where a command is to be sent that was answered by this.

        Raises:
            FeatureStoreDown: nowhere.
        """
        if isinstance(reply, TryAgainError):
            return address, asking
        if isinstance(reply, (MovedError, ClusterDownError)):
            self._discovery.forget()
        if not isinstance(reply, AskError):
            raise self._server(address).unavailable(reply)
        return (reply.host or self._server(address).host, reply.port), not isinstance(reply, MovedError)

    def _server(self, address: Address | None) -> Server:
        return self.server if address is None else self.server.at(address)

    def _pool(self, address: Address | None) -> Pool:
        return self._pools.get(address) or self._pools.setdefault(address, Pool(self._server(address)))

    def _masters(self) -> Sequence[Address | None]:
        slots = self._discovery.slots()
        return (None,) if slots is None else slots.masters

    @contextmanager
    def _noticed(self, address: Address | None) -> Iterator[None]:
        """What fails at a node makes the slots be learned anew, from others first."""
        try:
            yield
        except FeatureStoreDown:
            if address is not None:
                self._discovery.forget(address)
                if (pool := self._pools.pop(address, None)) is not None:
                    pool.close()
            raise
