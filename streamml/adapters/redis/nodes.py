"""All nodes of one Redis: a server by itself, or the masters of a Redis Cluster. Which one it is, the first answer says."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, TypeVar

from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    RedisError,
    TryAgainError,
)

from streamml.adapters.redis.connection import Pool, Reply, Server, Session, SlotMoved, pack
from streamml.adapters.redis.slots import Address, Slots, places_by_slot
from streamml.errors import ConfigError, FeatureStoreDown

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
        self._alone = Pool(server)
        self._pools: dict[Address, Pool] = {}
        self._suspects: set[Address | None] = set()
        self._slots: Slots | None = None
        self._known = False
        self._lock = threading.Lock()

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of these keys; of a server by itself as they are at one moment.

        Raises:
            FeatureStoreDown: a node does not answer, or answers with an error.
        """
        if self.cluster() is None:
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
                threading.Event().wait(_WAIT_S * attempt)
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
                if attempt == _ATTEMPTS - 1:
                    raise
            threading.Event().wait(_WAIT_S * attempt)
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
        return self._slots is not None

    def groups(self, keys: Sequence[bytes]) -> list[list[int]]:
        """The places in ``keys`` of those that one command may have together, in their order.

        Raises:
            FeatureStoreDown: no node says whether there are slots.
        """
        # Without asking again: which node has a slot may change, that there are slots does not.
        return places_by_slot(keys) if self.clustered or self.cluster() is not None else [[*range(len(keys))]]

    def cluster(self) -> Slots | None:
        """Who has which slot, as last heard; ``None``: this is a server by itself.

        Raises:
            FeatureStoreDown: no node says.
            ConfigError: several hosts are named, and one of them is no node of a cluster.
        """
        if not self._known:
            with self._lock:
                if not self._known:
                    self._learn()
        return self._slots

    def close(self) -> None:
        """Close all connections, those in use when their call ends."""
        for pool in (self._alone, *self._pools.values()):
            pool.close()

    def _owned(self, keys: Sequence[bytes]) -> _Trips:
        """Where commands about these keys are sent first."""
        slots = self.cluster()
        if slots is None:
            return {(None, False): [*range(len(keys))]}
        found = slots.places(keys)
        if None in found:
            self._known = False
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
                    found = session.read_many(len(places) * (1 + asking))[asking :: 1 + asking]
                for place, reply in zip(places, found, strict=True):
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
        server = self.server if address is None else self.server.at(address)
        if not isinstance(reply, AskError):
            self._known = self._known and not isinstance(reply, ClusterDownError)
            raise server.unavailable(reply)
        moved = isinstance(reply, MovedError)
        self._known = self._known and not moved
        return (reply.host or server.host, reply.port), not moved

    def _pool(self, address: Address | None) -> Pool:
        if address is None:
            return self._alone
        return self._pools.get(address) or self._pools.setdefault(address, Pool(self.server.at(address)))

    def _masters(self) -> Sequence[Address | None]:
        slots = self.cluster()
        return (None,) if slots is None else slots.masters

    @contextmanager
    def _noticed(self, address: Address | None) -> Iterator[None]:
        """What fails at a node makes the slots be learned anew, from others first."""
        try:
            yield
        except FeatureStoreDown:
            if self._slots is not None:
                self._known = False
                self._suspects.add(address)
            raise

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
        for gone in set(self._pools) - set(best.masters if best else ()):
            self._pools.pop(gone).close()

    def _asked_in_turn(self) -> list[tuple[Address | None, Server]]:
        named: list[tuple[Address | None, Server]] = [(None, one) for one in self.server.named]
        if self._slots is None:
            return named
        known = [(one, self.server.at(one)) for one in (*self._slots.masters, *self._slots.replicas)]
        random.shuffle(known)
        return sorted([*known, *named], key=lambda one: one[0] in self._suspects)

    def _heard(self, server: Server) -> Slots | None:
        """What one node says of the slots; ``None``: there are none."""
        session = server.connect()
        try:
            session.send(pack("HELLO"))
            [hello] = session.read_many(1)
            # An old server does not know the command, and a narrow rule may not permit it; a login that fails is told.
            if isinstance(hello, AuthenticationError):
                raise server.unavailable(hello)
            mode = dict(zip(hello[::2], hello[1::2], strict=True)).get(b"mode") if isinstance(hello, list) else None
            if mode == b"cluster":
                if not server.host:
                    raise ConfigError(f"Redis at {server.where} is a node of a cluster; name it by host and port.")
                return Slots.read(session.call("CLUSTER", "SLOTS"), server.host)
        finally:
            session.close()
        if len(self.server.named) > 1:
            raise ConfigError(
                f"Several hosts of Redis are named, which a Redis Cluster has, and {server.where} is a server by itself; name one."
            )
        return None
