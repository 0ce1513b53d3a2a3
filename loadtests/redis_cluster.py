"""A Redis Cluster on loopback: three masters, each with a replica; slots that move, masters that die."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import redis as client
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from streamml.ops.embedded.process import Server, free_port, listening
from streamml.ops.embedded.redis import server as executable

_MASTERS = 3
# A busy machine must not look like a node that is gone, except where one is meant to be.
_TOLERANT_MS = 30_000
_QUICK_MS = 700
_BUS = 10_000


class Node(Server):
    """One node; its data is gone when it ends."""

    def __init__(self, folder: Path) -> None:
        super().__init__(outlive=False)
        self.port = _port_with_bus()
        # Where clients are sent; another one where something stands in front of the node.
        self.announced = self.port
        self._folder = folder
        self.raw: Any = client.Redis(port=self.port, socket_timeout=10)

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self._folder,
            "save": "",
            "cluster-enabled": "yes",
            # A cluster waits as long, up to 5 s, before it says that it is whole.
            "cluster-node-timeout": _QUICK_MS,
            "cluster-announce-port": self.announced,
            "repl-diskless-sync": "yes",
            "repl-diskless-sync-delay": 0,
        }
        words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
        self._run([executable(lambda text: None), *words], self._folder / "redis.log")
        until(self.raw.ping)

    @property
    def alive(self) -> bool:
        return self._running

    @property
    def id(self) -> str:
        return str(self.raw.execute_command("CLUSTER MYID").decode())

    @property
    def is_master(self) -> bool:
        return bool(self.raw.role()[0] == b"master")


class RedisCluster:
    """Three masters, and a replica of each or none. `close` it."""

    def __init__(self, folder: Path, *, replicas: bool = True) -> None:
        self.nodes = [Node(folder / str(number)) for number in range(_MASTERS * (1 + replicas))]
        self._timeout_ms = _QUICK_MS

    @property
    def url(self) -> str:
        """Names two of the nodes; the others are to be found."""
        return "redis://" + ",".join(f"127.0.0.1:{node.announced}" for node in self.nodes[:2])

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        masters, replicas = self.nodes[:_MASTERS], self.nodes[_MASTERS:]
        bounds = [REDIS_CLUSTER_HASH_SLOTS * number // _MASTERS for number in range(_MASTERS + 1)]
        for number, master in enumerate(masters):
            master.raw.execute_command("CLUSTER ADDSLOTS", *range(bounds[number], bounds[number + 1]))
            master.raw.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        until(self._acquainted)
        for master, replica in zip(masters, replicas, strict=False):
            until(partial(replica.raw.execute_command, "CLUSTER REPLICATE", master.id))
        until(self.whole)
        self._noticed_after(_TOLERANT_MS)

    def _acquainted(self) -> bool:
        """Whether all know of all. On a busy machine one that met another may give up, so they meet again."""
        lacking = [node for node in self.nodes if int(_info(node)["cluster_known_nodes"]) < len(self.nodes)]
        for node in lacking:
            for other in self.nodes:
                node.raw.execute_command("CLUSTER MEET", "127.0.0.1", other.port)
        return not lacking

    def close(self) -> None:
        for node in self.nodes:
            node.raw.close()
            node.kill()

    def whole(self) -> bool:
        """Whether all nodes know of all slots, and each master's replica is in step."""
        alive = [node for node in self.nodes if node.alive]
        if any(_info(node)["cluster_state"] != "ok" for node in alive):
            return False
        following = [node for node in alive if not node.is_master]
        seen = [len(node.raw.execute_command("CLUSTER SLOTS")) for node in alive]
        in_step = all(node.raw.info("replication")["master_link_status"] == "up" for node in following)
        return len(following) == len(alive) - _MASTERS and in_step and len(set(seen)) == 1

    def owner(self, key: bytes) -> Node:
        """The master that has the slot of ``key``."""
        return self.owners([key])[0]

    def owners(self, keys: Sequence[bytes]) -> list[Node]:
        """The master of each key."""
        nodes = {node.announced: node for node in self.nodes}
        by_slot = {slot: nodes[port] for first, last, port in self._owned() for slot in range(first, last + 1)}
        return [by_slot[key_slot(key)] for key in keys]

    def _owned(self) -> list[tuple[int, int, int]]:
        """Ranges of slots and the ports of their masters, as a node that is alive says."""
        told = next(node for node in self.nodes if node.alive).raw.execute_command("CLUSTER SLOTS")
        return [(first, last, master[1]) for first, last, master, *_ in told]

    def quick(self, timeout_ms: int = _QUICK_MS) -> None:
        """From now on a node that is gone is noticed soon."""
        self._noticed_after(timeout_ms)

    def lose(self, victim: Node) -> None:
        """End a master as a crash does, and wait until its replica has taken over."""
        victim.kill()
        until(lambda: victim.announced not in {port for *_, port in self._owned()})

    def bring_back(self, node: Node) -> None:
        """Start a node whose replica has taken over, and wait until it is a replica in step."""
        node.start()
        self._noticed_after(self._timeout_ms)
        until(lambda: not node.is_master and self.whole())

    def copied(self) -> None:
        """Wait until the replicas have what the masters have now."""
        done = {node.port: node.raw.info("replication")["master_repl_offset"] for node in self.nodes if node.is_master}
        for node in self.nodes:
            if node.port not in done:
                until(partial(self._follows, node, done))

    @staticmethod
    def _follows(node: Node, done: dict[int, int]) -> bool:
        found = node.raw.info("replication")
        return bool(found["role"] == "slave" and found["slave_repl_offset"] >= done.get(found["master_port"], 0))

    def mend(self) -> None:
        """Bring back what was killed, and wait until all is well."""
        for node in self.nodes:
            if not node.alive:
                node.start()
        until(self.whole)
        self._noticed_after(_TOLERANT_MS)

    def _noticed_after(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        for node in self.nodes:
            if node.alive:
                node.raw.config_set("cluster-node-timeout", timeout_ms)

    def begin_move(self, slot: int, source: Node, target: Node) -> None:
        """From now on ``source`` sends on, by ASK, whoever asks for keys of the slot that it has not."""
        target.raw.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source.id)
        source.raw.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target.id)

    def move_keys(self, slot: int, source: Node, target: Node, most: int = 1000) -> None:
        keys = source.raw.execute_command("CLUSTER GETKEYSINSLOT", slot, most)
        if keys:
            source.raw.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, slot: int, target: Node) -> None:
        for node in sorted(self.nodes, key=lambda one: one is not target):
            if node.is_master:
                node.raw.execute_command("CLUSTER SETSLOT", slot, "NODE", target.id)


def until(holds: Callable[[], object], patience_s: float = 60.0) -> None:
    """Wait for a condition; a server that does not answer does not meet it."""
    end = time.monotonic() + patience_s
    while True:
        with suppress(client.RedisError):
            if holds():
                return
        assert time.monotonic() < end
        time.sleep(0.02)


def _info(node: Node) -> dict[str, str]:
    text = node.raw.execute_command("CLUSTER INFO")
    text = text.decode() if isinstance(text, bytes) else text
    return dict(line.split(":") for line in text.split()) if isinstance(text, str) else text


def _port_with_bus() -> int:
    """Free, as is the port on which the nodes talk to each other, which Linux gives to no connection."""
    while True:
        port = free_port()
        if port + _BUS < 32_000 and not listening(port + _BUS):
            return port
