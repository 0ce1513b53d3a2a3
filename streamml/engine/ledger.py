"""Which records of one assignment are settled, and how far it is safe to commit."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from streamml.batch.microbatch import Int
from streamml.errors import LedgerViolation
from streamml.ports.source import RecordRun


@dataclass(slots=True)
class _Entry:
    first_ordinal: int
    unsettled: int
    run: RecordRun
    end: int


class Ledger:
    """Counts unsettled records per polled run of one slot; the cost is per run, not per record.

    The position is one past the last offset (and what lies hidden behind it) of the longest prefix of runs in which every record is settled. Nothing at
    or beyond an unsettled record is ever inside it, whatever the order of settling (promise D1).
    """

    def __init__(self, position: int) -> None:
        """
        Args:
            position: next offset to be read when the slot was assigned.
        """
        self._entries: list[_Entry] = []
        self._starts: list[int] = []
        self._next_ordinal = 0
        self._position = position

    @property
    def position(self) -> int:
        """Next offset to commit: everything below it is settled."""
        return self._position

    @property
    def unsettled(self) -> int:
        """Records that were polled and are not settled."""
        return sum(entry.unsettled for entry in self._entries)

    def open(self, run: RecordRun) -> int:
        """Enter a polled run; returns the ordinal of its first record."""
        first, rows = self._next_ordinal, len(run)
        self._entries.append(_Entry(first, rows, run, int(run.offsets[-1]) + 1))
        self._starts.append(first)
        self._next_ordinal += rows
        return first

    def skip_to(self, position: int) -> None:
        """What lies between the last polled record and ``position`` is shown to nobody: it needs no settling."""
        if self._entries:
            self._entries[-1].end = max(self._entries[-1].end, position)
        else:
            self._position = max(self._position, position)

    def position_at(self, ordinal: int) -> int:
        """Next offset to commit if all records before ``ordinal`` are settled (and what is hidden behind them)."""
        index = bisect_right(self._starts, ordinal) - 1
        if index < 0:
            return self._position
        entry, place = self._entries[index], ordinal - self._starts[index]
        if place == 0:
            return self._entries[index - 1].end if index else self._position
        return entry.end if place >= len(entry.run) else int(entry.run.offsets[place - 1]) + 1

    def settle(self, ordinals: Int) -> tuple[int, int]:
        """Settle the records at ``ordinals``, ascending, each exactly once over the life of the slot.

        Returns:
            Records and bytes of the runs that left the ledger because they and all before them are settled.

        Raises:
            LedgerViolation: an ordinal was never opened, or was settled before.
        """
        first = self._starts[0] if self._starts else self._next_ordinal
        if len(ordinals) and not (first <= ordinals[0] and ordinals[-1] < self._next_ordinal):
            raise LedgerViolation("A record was settled that is not open: settled twice, or never polled.")
        for index, count in enumerate(self._counts(ordinals)):
            if count:
                entry = self._entries[index]
                entry.unsettled -= count
                if entry.unsettled < 0:
                    raise LedgerViolation(f"{-entry.unsettled} records of {entry.run.where()} were settled twice.")
        return self._release_prefix()

    def _counts(self, ordinals: Int) -> list[int]:
        """How many of the ordinals are in each entry."""
        if len(self._entries) == 1:
            return [len(ordinals)]
        below: list[int] = ordinals.searchsorted(self._starts[1:]).tolist()
        return [end - start for start, end in zip([0, *below], [*below, len(ordinals)], strict=True)]

    def _release_prefix(self) -> tuple[int, int]:
        done = rows = size_bytes = 0
        for entry in self._entries:
            if entry.unsettled:
                break
            done += 1
            rows += len(entry.run)
            size_bytes += entry.run.size_bytes
            self._position = entry.end
        del self._entries[:done], self._starts[:done]
        return rows, size_bytes

    def find(self, ordinal: int) -> tuple[RecordRun, int]:
        """The run that holds ``ordinal`` and the record's index in it.

        Raises:
            LedgerViolation: the record has left the ledger.
        """
        index = bisect_right(self._starts, ordinal) - 1
        if index < 0 or ordinal >= self._entries[index].first_ordinal + len(self._entries[index].run):
            raise LedgerViolation(f"Record number {ordinal} is not in the ledger any more.")
        entry = self._entries[index]
        return entry.run, ordinal - entry.first_ordinal

    @property
    def size_bytes(self) -> int:
        """Bytes of all runs that are still here."""
        return sum(entry.run.size_bytes for entry in self._entries)

    @property
    def rows(self) -> int:
        """Records of all runs that are still here."""
        return sum(len(entry.run) for entry in self._entries)
