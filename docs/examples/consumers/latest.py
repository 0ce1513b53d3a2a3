"""What a consumer of predictions keeps, so that corrections count and duplicates and late ones do not.

Take one of the two classes into your code; neither needs streamml. The order in which records arrive does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Prediction(NamedTuple):
    """One record of the prediction topic. ``time_ms`` is its timestamp: the source record's."""

    id: str
    revision: int
    key: bytes | None
    time_ms: int
    value: bytes | None


def prediction(
    key: bytes | None, value: bytes | None, time_ms: int, headers: Iterable[tuple[str, bytes | None]]
) -> Prediction:
    """A record with the header ``streamml``: ``1;id;model@version;revision;flags``.

    Raises:
        ValueError: it has none, or one of a later version.
    """
    parts = (dict(headers).get("streamml") or b"").decode().split(";", 4)
    if len(parts) != 5 or parts[0] != "1":
        raise ValueError("The record has no header `streamml` of version 1.")
    return Prediction(parts[1], int(parts[3]), key, time_ms, value)


class HighestRevision:
    """Keeps each prediction by id, in its highest revision: 0 is live, a replay writes its number."""

    def __init__(self) -> None:
        self.kept: dict[str, Prediction] = {}

    def take(self, one: Prediction) -> bool:
        """Whether it is news; an equal revision is a duplicate."""
        known = self.kept.get(one.id)
        if known is not None and known.revision >= one.revision:
            return False
        self.kept[one.id] = one
        return True


class LatestPerKey:
    """Keeps of each key the newest prediction by source time, and that one in its highest revision.

    Of two records with one time the later in its partition is the newer: a correction replaces what it corrects, and
    whatever is older, and nothing else.
    """

    def __init__(self) -> None:
        self.kept: dict[bytes | None, Prediction] = {}

    def take(self, one: Prediction) -> bool:
        """Whether it is news."""
        known = self.kept.get(one.key)
        if known is not None and _rank(known) >= _rank(one):
            return False
        self.kept[one.key] = one
        return True


def _rank(one: Prediction) -> tuple[int, int, int, int, int]:
    """Time, then the place that the id names (``topic/partition/offset``, ``#i`` for a child), then the revision."""
    record, _, child = one.id.partition("#")
    _, partition, offset = record.rsplit("/", 2)
    return one.time_ms, int(offset), int(partition), int(child or -1), one.revision
