"""Which node of a Redis Cluster has a key. Pure; nothing here talks to a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Slots:
    """What one node said of the whole cluster.

    Args:
        owners: the master of each of the 16,384 slots; ``None``: it has none.
        masters: each once.
        replicas: likewise.
    """

    owners: tuple[Address | None, ...]
    masters: tuple[Address, ...]
    replicas: tuple[Address, ...]

    @staticmethod
    def read(reply: Sequence[Any], asked: str) -> Slots:
        """The answer to ``CLUSTER SLOTS``.

        Args:
            asked: host of the node that gave it, which stands for a host that it does not name.
        """
        owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        masters: dict[Address, None] = {}
        replicas: dict[Address, None] = {}
        for first, last, master, *others in reply:
            owner = _address(master, asked)
            owners[first : last + 1] = [owner] * (last + 1 - first)
            masters[owner] = None
            replicas.update(dict.fromkeys(_address(one, asked) for one in others))
        return Slots(tuple(owners), tuple(masters), tuple(replicas))

    def places(self, keys: Sequence[bytes]) -> dict[Address | None, list[int]]:
        """The places in ``keys`` of what each node has, under ``None`` of what no node has."""
        found: dict[Address | None, list[int]] = {}
        owners = self.owners
        for place, key in enumerate(keys):
            found.setdefault(owners[key_slot(key)], []).append(place)
        return found


def places_by_slot(keys: Sequence[bytes]) -> list[list[int]]:
    """The places in ``keys`` of those of one slot, for commands that take several keys."""
    found: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        found.setdefault(key_slot(key), []).append(place)
    return list(found.values())


def _address(node: Sequence[Any], asked: str) -> Address:
    host = b"" if node[0] is None else node[0]
    return (asked if host in (b"", b"?") else host.decode()), int(node[1])
