"""Outcomes are computed in any order and released in one."""

from __future__ import annotations

import numpy as np

from streamml.batch.microbatch import Int
from streamml.batch.outcome import Kind, Outcomes, join_outcomes


class Sequencer:
    """Releases the outcomes of one slot so that each kind keeps the order of the source partition (promise D4).

    A record is complete when it has ended, and if it was exploded, when all its children have. Complete records are
    released once everything before them is complete. Predictions go to one topic and dead letters to another, so order
    holds within a kind, and a release hands over at most one block of each.

    With ``ordered=False`` complete records are released at once.
    """

    def __init__(self, *, ordered: bool = True) -> None:
        self._ordered = ordered
        self._next = 0
        self._waiting: list[Outcomes] = []

    @property
    def waiting(self) -> int:
        """Rows that ended and wait for earlier ones."""
        return sum(len(piece) for piece in self._waiting)

    def offer(self, pieces: list[Outcomes]) -> list[Outcomes]:
        """Take rows that ended; each piece is sorted by (ordinal, child).

        Returns:
            What may go out now, in order within each kind.
        """
        if len(pieces) == 1 and pieces[0].origin.child is None and self.follows(pieces[0].origin.ordinal):
            self.passed(len(pieces[0]))
            return pieces
        self._waiting.extend(pieces)
        if self._ordered and all(piece.origin.ordinal[0] > self._next for piece in self._waiting):
            return []
        return self._release(self._complete())

    def follows(self, ordinals: Int) -> bool:
        """Whether these, sorted and distinct, are the next records, and nothing waits: then `passed` may stand for `offer`."""
        first = int(ordinals[0])
        return first == self._next and int(ordinals[-1]) - first == len(ordinals) - 1 and not self._waiting

    def passed(self, records: int) -> None:
        """So many records that follow, none of them exploded, are released by the caller."""
        self._next += records

    def _complete(self) -> Int:
        """Sorted ordinals of the records that may be released."""
        ordinals = np.concatenate([piece.origin.ordinal for piece in self._waiting])
        parents, inverse, counts = np.unique(ordinals, return_inverse=True, return_counts=True)
        expected = np.full(len(parents), np.iinfo(np.int64).max, np.int64)
        lasts = np.concatenate([piece.origin.lasts for piece in self._waiting])
        children = np.concatenate([piece.origin.children for piece in self._waiting])
        expected[inverse[lasts]] = children[lasts] + 1
        complete = counts == expected
        if not self._ordered:
            ready: Int = parents[complete]
            return ready
        run = (parents == self._next + np.arange(len(parents))) & complete
        length = len(run) if run.all() else int(np.argmin(run))
        self._next += length
        return parents[:length]

    def _release(self, complete: Int) -> list[Outcomes]:
        if not len(complete):
            return []
        released: list[Outcomes] = []
        kept: list[Outcomes] = []
        for piece in self._waiting:
            ready = np.isin(piece.origin.ordinal, complete, kind="sort")
            if ready.all():
                released.append(piece)
            elif not ready.any():
                kept.append(piece)
            else:
                released.append(piece.take(ready))
                kept.append(piece.take(~ready))
        self._waiting = kept
        return [block for kind in Kind for block in _in_order([piece for piece in released if piece.kind is kind])]


def _in_order(pieces: list[Outcomes]) -> list[Outcomes]:
    """Pieces of one kind by (ordinal, child); those whose ranges interleave are merged."""
    pieces.sort(key=lambda piece: (int(piece.origin.ordinal[0]), int(piece.origin.children[0])))
    ends = [(int(piece.origin.ordinal[-1]), int(piece.origin.children[-1])) for piece in pieces]
    starts = [(int(piece.origin.ordinal[0]), int(piece.origin.children[0])) for piece in pieces]
    if all(end < start for end, start in zip(ends, starts[1:], strict=False)):
        return pieces
    merged = join_outcomes(pieces)
    return [merged.take(np.lexsort((merged.origin.children, merged.origin.ordinal)))]
