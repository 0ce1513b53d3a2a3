"""The contract of what reads a feature log back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streamml.batch.column import Array, concatenate
from streamml.batch.microbatch import Int


@dataclass(frozen=True, slots=True)
class LoggedRows:
    """Feature values of ``n`` rows of one source partition, in the order of the source.

    Args:
        offset: int64 ``[n]``, ascending.
        child: int64 ``[n]``, index among the parent's children, -1: not exploded; ``None``: no row was.
        text: int64 ``[n]``, place of each row's flags in ``texts``.
        texts: flags as predictions have them: ``set@version`` and, if not fresh, its state; see docs/reference.
        columns: values by name ``[n, ...]``.
    """

    offset: Int
    child: Int | None
    text: Int
    texts: tuple[str, ...]
    columns: dict[str, Array]

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def children(self) -> Int:
        """`child`, with -1 where it is ``None``."""
        return np.full(len(self), -1, np.int64) if self.child is None else self.child

    def take(self, index: Array | slice) -> LoggedRows:
        """The rows at ``index``."""
        return LoggedRows(
            self.offset[index],
            None if self.child is None else self.child[index],
            self.text[index],
            self.texts,
            {name: column[index] for name, column in self.columns.items()},
        )

    @staticmethod
    def join(parts: Sequence[LoggedRows]) -> LoggedRows:
        """All rows of ``parts``, at least one, in that order."""
        if len(parts) == 1:
            return parts[0]
        texts: list[str] = []
        places: list[Int] = []
        for part in parts:
            places.append(part.text + len(texts))
            texts += part.texts
        exploded = any(part.child is not None for part in parts)
        return LoggedRows(
            np.concatenate([part.offset for part in parts]),
            np.concatenate([part.children for part in parts]) if exploded else None,
            np.concatenate(places),
            tuple(texts),
            {name: concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
        )


class RecordedFeatures(Protocol):
    """Gives back the features of rows as they were used. All calls come from one thread."""

    def rows(self, prefix: str, first: int, last: int, since_ms: int) -> LoggedRows:
        """What was recorded of a source partition, offsets ``first`` to ``last``, both included; each row once.

        Calls for one source partition never go back: ``first`` is at least that of the call before, which may be repeated.

        Args:
            prefix: of the partition's prediction ids, ``topic id/partition/``.
            since_ms: time of the record at ``first`` or before, ms since 1970 UTC.

        Raises:
            TransientError: the log does not answer.
        """
        ...
