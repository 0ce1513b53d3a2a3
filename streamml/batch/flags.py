"""Codes for what happened to a row on its way: feature versions, missing or stale features, lateness.

Rows carry one integer; the text it stands for is written into the prediction's header. The texts are few (one per
combination that occurred), the rows are many.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

import numpy as np

from streamml.batch.microbatch import Int


class FlagTable:
    """Texts by code and codes by text. Safe to share between threads."""

    def __init__(self) -> None:
        self._texts: list[str] = [""]
        self._codes: dict[str, int] = {"": 0}
        self._lock = Lock()

    def code(self, text: str) -> int:
        """The code of ``text``, the same for the life of the process."""
        found = self._codes.get(text)
        if found is not None:
            return found
        with self._lock:
            if text not in self._codes:
                self._texts.append(text)
                self._codes[text] = len(self._texts) - 1
            return self._codes[text]

    def text(self, code: int) -> str:
        return self._texts[code]

    def joined(self, flags: Int, added: Int) -> Int:
        """Codes of ``text(flags),text(added)`` for every row; int64 ``[n]``."""
        if not flags.any():
            return added
        if not added.any():
            return flags
        width = len(self._texts)
        pairs, inverse = np.unique(flags * width + added, return_inverse=True)
        texts = [",".join(filter(None, (self.text(int(p) // width), self.text(int(p) % width)))) for p in pairs]
        return np.array([self.code(text) for text in texts], np.int64)[inverse]

    def __len__(self) -> int:
        return len(self._texts)


FLAGS: Final = FlagTable()
