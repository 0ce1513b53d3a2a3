"""Slots: one for each time that a partition is given to this worker."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamml.engine.ledger import Ledger
from streamml.engine.sequencer import Sequencer
from streamml.ports.source import TopicPartition


@dataclass(slots=True)
class Slot:
    """One assignment of one partition. Its number is the fence: a result that names another slot is not of it.

    Args:
        committed: the position that a commit was asked for, last.
        unsure: whether that commit failed, as far as is known.
    """

    number: int
    partition: TopicPartition
    ledger: Ledger
    sequencer: Sequencer
    committed: int
    unsure: bool = False


@dataclass(slots=True)
class SlotNames:
    """Prediction id prefixes ``topic id/partition/`` by slot number. Grows only; read by other threads."""

    topic_ids: dict[str, str] = field(default_factory=dict)
    prefixes: list[str] = field(default_factory=list)

    def add(self, partition: TopicPartition) -> int:
        """The number of a new slot."""
        topic = self.topic_ids.get(partition.topic, partition.topic)
        self.prefixes.append(f"{topic}/{partition.partition}/")
        return len(self.prefixes) - 1


class Assignment:
    """The slots that are open now."""

    def __init__(self, names: SlotNames, *, ordered: bool) -> None:
        self._names = names
        self._ordered = ordered
        self._by_partition: dict[TopicPartition, Slot] = {}
        self._by_number: dict[int, Slot] = {}
        self._slots: tuple[Slot, ...] = ()

    def open(self, partition: TopicPartition, position: int) -> Slot:
        """A new slot; an open one of the same partition is closed, as its results are of another epoch."""
        self.close(partition)
        number = self._names.add(partition)
        slot = Slot(number, partition, Ledger(position), Sequencer(ordered=self._ordered), committed=position)
        self._by_partition[partition] = self._by_number[number] = slot
        self._slots = tuple(self._by_partition.values())
        return slot

    def close(self, partition: TopicPartition) -> Slot | None:
        """Forget the partition's slot; returns it."""
        slot = self._by_partition.pop(partition, None)
        if slot is not None:
            del self._by_number[slot.number]
            self._slots = tuple(self._by_partition.values())
        return slot

    def of(self, partition: TopicPartition) -> Slot | None:
        return self._by_partition.get(partition)

    def by_number(self, number: int) -> Slot | None:
        """The slot of that number, ``None`` once it was closed."""
        return self._by_number.get(number)

    def slots(self) -> tuple[Slot, ...]:
        return self._slots
