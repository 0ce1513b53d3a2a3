"""Who of a consumer group reads which partition, and how far the group has committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from streamml.ports.control import RUNNING, GroupState
from streamml.ports.source import Positions, TopicPartition


class Group:
    """Members of one consumer group. A member first lets go of what it is to lose; only then another one gets it.

    Not safe between threads; the broker's lock is held around every call.
    """

    def __init__(self) -> None:
        self.committed: dict[TopicPartition, int] = {}
        self.generation = 0
        self.state = RUNNING
        self.listeners: list[Callable[[GroupState], None]] = []
        self._members: list[object] = []
        self._identities: dict[str, object] = {}
        self._owners: dict[TopicPartition, object] = {}
        self._targets: dict[TopicPartition, object] = {}

    def join(self, member: object, partitions: Sequence[TopicPartition], identity: str | None = None) -> None:
        """Take in a member that reads ``partitions``; all members of a group read the same.

        An earlier member of the same ``identity`` is out, and its partitions are free.
        """
        if identity is not None:
            self._forget(self._identities.get(identity))
            self._identities[identity] = member
        self._members.append(member)
        self.generation += 1
        self.spread(partitions)

    def leave(self, member: object) -> None:
        """Forget a member; what it owned is free. Nothing happens where it is no member."""
        self._forget(member)
        self.spread(list(self._targets))

    def spread(self, partitions: Sequence[TopicPartition]) -> None:
        """Decide anew who is to own what."""
        self._targets = balanced(partitions, self._members, self._owners)

    def has(self, member: object) -> bool:
        return member in self._members

    def fenced(self, member: object, identity: str | None) -> bool:
        """Whether another member took over the identity."""
        return identity is not None and self._identities.get(identity, member) is not member

    def moving(self, member: object) -> bool:
        """Whether the member has anything to do before it reads on."""
        return not self.has(member) or bool(self.to_release(member) or self.to_take(member))

    def owned(self, member: object) -> list[TopicPartition]:
        return [where for where, owner in self._owners.items() if owner is member]

    def to_release(self, member: object) -> list[TopicPartition]:
        """What the member owns and another one is to get."""
        return [where for where in self.owned(member) if self._targets.get(where) is not member]

    def to_take(self, member: object) -> list[TopicPartition]:
        """What is free for the member."""
        return [where for where, to in self._targets.items() if to is member and where not in self._owners]

    def release(self, member: object, partitions: Sequence[TopicPartition]) -> None:
        for where in partitions:
            if self._owners.get(where) is member:
                del self._owners[where]

    def take(self, member: object, partitions: Sequence[TopicPartition]) -> None:
        self._owners.update(dict.fromkeys(partitions, member))

    def commit(self, member: object, positions: Positions) -> bool:
        """Commit what a member says, whosever the partitions are, as Kafka does; whether it is a member."""
        if member not in self._members:
            return False
        self.committed.update(positions)
        return True

    def _forget(self, member: object) -> None:
        if member in self._members:
            self._members.remove(member)
            self.generation += 1
            self._owners = {where: owner for where, owner in self._owners.items() if owner is not member}


def balanced(
    partitions: Sequence[TopicPartition], members: Sequence[object], owners: Mapping[TopicPartition, object]
) -> dict[TopicPartition, object]:
    """Partitions by member: counts differ by at most one, and as few partitions as can be change hands."""
    if not members:
        return {}
    held = {id(member): [where for where in partitions if owners.get(where) is member] for member in members}
    least, more = divmod(len(partitions), len(members))
    targets: dict[TopicPartition, object] = {}
    free: list[object] = []
    for index, member in enumerate(sorted(members, key=lambda one: -len(held[id(one)]))):
        room = least + (index < more)
        kept = held[id(member)][:room]
        targets.update(dict.fromkeys(kept, member))
        free += [member] * (room - len(kept))
    rest = [where for where in partitions if where not in targets]
    return {**targets, **dict(zip(rest, free, strict=True))}
