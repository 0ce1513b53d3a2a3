"""Ids and provenance of predictions: the wire format, version 1.

Id: ``topic id/partition/offset`` of the event, ``#i`` added for child ``i`` of an exploded event (promise D3).
Header ``streamml``: ``1;id;model@version;revision;flags``. Revision 0 is live; a replay writes its run's number.
"""

from __future__ import annotations

from typing import Final, NamedTuple

HEADER: Final = "streamml"
FORMAT: Final = "1"


class Provenance(NamedTuple):
    """What made a prediction."""

    id: str
    model: str
    revision: int
    flags: str


def prediction_id(prefix: str, offset: int, child: int | None = None) -> str:
    """The id of a prediction or dead letter; ``prefix`` is ``topic id/partition/``."""
    return f"{prefix}{offset}" if child is None else f"{prefix}{offset}#{child}"


def read_header(value: bytes) -> Provenance:
    """Read the header ``streamml``.

    Raises:
        ValueError: it is not of format version 1.
    """
    parts = value.decode().split(";", 4)
    if len(parts) != 5 or parts[0] != FORMAT:
        raise ValueError(f"The header {HEADER!r} is not of format {FORMAT}.")
    return Provenance(parts[1], parts[2], int(parts[3]), parts[4])
