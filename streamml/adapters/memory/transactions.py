"""A sink in transactions on a broker in this process (promise D2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamml.adapters.memory.broker import MemoryBroker
from streamml.adapters.memory.sink import MemorySink
from streamml.adapters.memory.source import MemorySource
from streamml.ports.sink import Delivered, OutboundRecords, TransactionEnded
from streamml.ports.source import Positions, RawRecord


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a transaction is to end; ``positions`` is ``None`` where it is taken back."""

    positions: Positions | None
    generation: int | None


class MemoryTransactions(MemorySink):
    """Writes records in transactions; see `streamml.ports.sink.TransactionalSink` for the contract.

    What is in a transaction is in no topic until it is committed, so every reader is one that reads what was committed.
    """

    def __init__(self, broker: MemoryBroker, source: MemorySource) -> None:
        """
        Args:
            source: the member of the group whose positions are committed.
        """
        super().__init__(broker)
        self._source = source
        self._records: list[tuple[str, RawRecord]] = []
        self._refused = False
        self._ending: _Ending | None = None

    def commit(self, positions: Positions) -> None:
        """See `TransactionalSink.commit`."""
        self._ending = _Ending(positions, self._source.generation)

    def abort(self) -> None:
        """See `TransactionalSink.abort`."""
        self._ending = _Ending(None, None)

    def completions(self) -> list[Delivered | TransactionEnded]:
        """See `TransactionalSink`."""
        with self._broker.lock():
            ended: list[Delivered | TransactionEnded] = list(super().completions())
            if self._ending is not None and self._broker.down is None:
                ended.append(self._end(self._ending))
        return ended

    def close(self, timeout_s: float) -> int:
        """See `Sink.close`. What is in no committed transaction is taken back."""
        left = sum(len(block) for _, blocks in self._waiting for block in blocks)
        self._waiting.clear()
        self._records.clear()
        return left

    def _take(self, topic: str, record: RawRecord) -> None:
        self._records.append((topic, record))

    def _write(self, token: int, blocks: Sequence[OutboundRecords]) -> Delivered:
        delivered = super()._write(token, blocks)
        self._refused = self._refused or bool(delivered.refusals)
        return delivered

    def _end(self, ending: _Ending) -> TransactionEnded:
        current = self._source.generation
        commits = ending.positions is not None and current is not None and current == ending.generation
        if commits and not self._refused and ending.positions is not None:
            for topic, record in self._records:
                self._broker.store(topic, record)
            self._source.commit(ending.positions, wait=True)
        committed = commits and not self._refused
        self._records, self._refused, self._ending = [], False, None
        return TransactionEnded(committed)
