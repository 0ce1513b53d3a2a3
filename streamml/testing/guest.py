"""A member of a group that takes partitions and reads nothing."""

from __future__ import annotations

from collections.abc import Sequence

from streamml.adapters.memory.source import MemorySource
from streamml.errors import SourceUnavailable
from streamml.ports.source import Positions, TopicPartition


class Guest:
    """Joins, holds what it gets, leaves; it commits nothing."""

    def __init__(self, source: MemorySource) -> None:
        self._source = source

    def join(self) -> bool:
        """Whether the broker answered."""
        try:
            self._source.open(self)
        except SourceUnavailable:
            return False
        return True

    def take(self) -> None:
        """Take what the others have let go of."""
        try:
            self._source.poll(0, 0.0)
        except SourceUnavailable:
            return

    def leave(self) -> None:
        self._source.close()

    # -- SourceListener

    def assigned(self, positions: Positions) -> None:
        """Nothing is read."""

    def revoking(self, partitions: Sequence[TopicPartition]) -> Positions:
        return {}

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Nothing was read."""
