"""What a topology wrote, as tests read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from streamml.engine.identity import HEADER, Provenance, read_header
from streamml.ports.source import Headers, RawRecord


@dataclass(frozen=True, slots=True)
class Prediction:
    """One prediction.

    Args:
        id: prediction id, ``topic/partition/offset`` of the event, with ``#i`` for a child.
        key: the record's key.
        value: the decoded JSON; ``None`` for a tombstone that was passed on.
        headers: of the record, that of streamml left out.
        timestamp: ms since 1970 UTC.
        model: ``name@version``, empty where no model had to do with it.
        revision: 0 live.
        flags: what happened to the row: ``route@v1:missing``, ``late``.
    """

    id: str
    key: bytes | None
    value: Any
    headers: Headers
    timestamp: int
    model: str
    revision: int
    flags: tuple[str, ...]


def read_prediction(record: RawRecord) -> Prediction:
    """Read a record of the prediction topic, whose provenance is in a header or in fields."""
    value: Any = None if record.value is None else json.loads(record.value)
    mark = dict(record.headers).get(HEADER)
    if mark is not None:
        made = read_header(mark)
    else:
        made = Provenance(value["prediction_id"], value["model"], value["revision"], value["flags"])
    return Prediction(
        id=made.id,
        key=record.key,
        value=value,
        headers=[pair for pair in record.headers if pair[0] != HEADER],
        timestamp=record.timestamp,
        model=made.model,
        revision=made.revision,
        flags=tuple(filter(None, made.flags.split(","))),
    )
