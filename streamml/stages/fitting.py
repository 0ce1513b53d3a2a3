"""How many rows of a batch a model has memory for (promise M5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_PATIENCE: Final = 16
_MOST_PATIENCE: Final = 1024


class FittingRows:
    """Learns from batches that did not fit, and grows back slowly: memory that others took may be free again.

    After a batch that did not fit, half of it is the most; after 16 calls of that size that did fit, twice as many rows are
    tried. Each time that this was too many, four times as many calls pass before the next try, up to 1024.
    """

    def __init__(self) -> None:
        self.most: int | None = None
        """Rows of the largest call; ``None``: any."""
        self.too_large = 0
        """Calls so far that did not fit."""
        self._whole = 0
        self._calls = 0
        self._patience = _PATIENCE
        self._trying = False

    def cut(self, rows: int) -> list[range]:
        """A batch of ``rows`` rows in parts that fit, in order."""
        most = self.most or rows
        return [range(start, min(start + most, rows)) for start in range(0, rows, most)]

    def learn(self, fitted: Sequence[int], too_large: Sequence[int]) -> None:
        """Sizes of calls that passed, and of calls that did not fit although each of their rows does."""
        if too_large:
            self._shrink(too_large)
        elif self.most is not None:
            most = self.most
            self._calls += sum(size >= most for size in fitted)
            if self._calls and self._trying:
                self._trying, self._patience = False, _PATIENCE
            if self._calls >= self._patience:
                self._grow(2 * most)

    def _shrink(self, too_large: Sequence[int]) -> None:
        self.too_large += len(too_large)
        self._patience = min(4 * self._patience, _MOST_PATIENCE) if self._trying else _PATIENCE
        self._whole = max(self._whole, *too_large)
        self.most, self._calls, self._trying = max(1, min(too_large) // 2), 0, False

    def _grow(self, rows: int) -> None:
        self._calls, self._trying = 0, True
        self.most = rows if rows < self._whole else None
