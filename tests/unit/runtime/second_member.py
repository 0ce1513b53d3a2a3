"""Another member of a worker's group, which takes partitions from it."""

from __future__ import annotations

from collections.abc import Sequence

from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.source import MemorySource
from streamml.ports.source import Positions, SourceListener, TopicPartition


class Other(SourceListener):
    """The second member of the group; it joins, and notes where its partitions start."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.starts: dict[TopicPartition, int] = {}
        self.source = MemorySource(broker, ["events"], "group", "earliest")
        self.source.open(self)

    def assigned(self, positions: Positions) -> None:
        self.starts.update(positions)

    def revoking(self, partitions: Sequence[TopicPartition]) -> Positions:
        return {}

    def lost(self, partitions: Sequence[TopicPartition]) -> None: ...
