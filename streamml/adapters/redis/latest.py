"""Latest predictions by key: how they lie in Redis, and the script that never puts an older one over a newer.

One string per key, ``streamml.latest:{name}:{len}:{key}``, the key as decimal byte length, ``":"``, bytes. Little-endian::

    offset  size  what
    0       4     the bytes 53 4D 50 31, "SMP1": format and its version
    4       4     revision, unsigned: 0 live, a replay's number
    8       8     time of the event's record; signed, microseconds since 1970-01-01 UTC
    16      8     offset of the event's record, signed
    24      4     partition of the event's record, signed
    28      4     child of an exploded event, signed; -1: the event itself
    32      4     bytes of the provenance, unsigned
    36      4     1: the prediction is a tombstone and has no value; 0 otherwise
    40      ...   the provenance in UTF-8, as in the header "streamml": 1;id;model@version;revision;flags
    then    ...   the value as it is in the prediction topic, to the end

Newer is what has the later time, then the higher offset, partition, child and revision, in this order. docs/reference/redis-latest.md
says the same for other languages.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from streamml.adapters.redis.keys import keys_of_parts
from streamml.adapters.redis.streaming import REPLACE
from streamml.engine.identity import HEADER, Provenance, read_header
from streamml.ports.sink import OutboundRecords

_MAGIC: Final = b"SMP1"
_HEAD: Final = struct.Struct("<4sIqqiiII")
_LAST_US: Final = (1 << 63) - 1

# As with streaming features, the value that a SET replaced is put back where it was the newer one.
SCRIPT: Final = (
    REPLACE
    + """\
local function parts(value)
  local revision, time_low, time_high, offset_low, offset_high, partition, child = unpack('<I4I4i4I4i4i4i4', value, 5)
  return {time_high, time_low, offset_high, offset_low, partition, child, revision}
end
local function before(one, other)
  for i = 1, 7 do
    if one[i] ~= other[i] then return one[i] < other[i] end
  end
  return false
end
for i = 1, #KEYS do
  local new = ARGV[i + 1]
  local old = set(KEYS[i], new)
  if old and #old >= 40 and sub(old, 1, 4) == sub(new, 1, 4) and before(parts(new), parts(old)) then
    set(KEYS[i], old)
    older = older + 1
  end
end
return older
"""
)


@dataclass(frozen=True, slots=True)
class Latest:
    """The latest prediction of one key.

    Args:
        value: as in the prediction topic; ``None``: the prediction is a tombstone.
        id: of the prediction.
        model: ``name@version``, empty where no model had to do with it.
        revision: 0 live, a replay's number.
        flags: what happened to its features.
        event_time_ms: time of the event's record, ms since 1970 UTC.
    """

    value: bytes | None
    id: str
    model: str
    revision: int
    flags: str
    event_time_ms: int


def latest_prefix(name: str) -> bytes:
    """What the keys of a sink begin with."""
    return f"streamml.latest:{name}:".encode()


def entries(records: OutboundRecords, prefix: bytes) -> tuple[list[bytes], list[bytes]]:
    """Keys and stored values of those predictions that have a key."""
    keys, values = [], []
    rows = zip(records.keys, records.values, records.headers, records.timestamps, strict=True)
    for key, value, headers, timestamp in rows:
        mark = next((held for name, held in headers if name == HEADER), None)
        if key is not None and mark is not None:
            keys.append(key)
            values.append(packed(value, mark, timestamp))
    return keys_of_parts(prefix, [keys], len(keys)), values


def packed(value: bytes | None, mark: bytes, timestamp_ms: int) -> bytes:
    """One prediction as it is stored; ``mark`` is its header ``streamml``."""
    made = read_header(mark)
    # Who writes events chooses their times, those that are none too: the first and the last that there are stand for them.
    time_us = max(-_LAST_US, min(timestamp_ms * 1000, _LAST_US))
    head = _HEAD.pack(_MAGIC, made.revision, time_us, *_place(made), len(mark), value is None)
    return head + mark + (value or b"")


def unpacked(stored: bytes) -> Latest:
    """What `packed` made.

    Raises:
        ValueError: these bytes are none of it.
    """
    if len(stored) < _HEAD.size:
        raise ValueError(f"{len(stored)} bytes are no stored prediction.")
    magic, revision, time_us, _, _, _, length, tombstone = _HEAD.unpack_from(stored)
    if magic != _MAGIC or len(stored) < _HEAD.size + length:
        raise ValueError(f"{stored[:8]!r}… is no stored prediction of format {_MAGIC.decode()}.")
    made = read_header(stored[_HEAD.size : _HEAD.size + length])
    value = None if tombstone else stored[_HEAD.size + length :]
    return Latest(value, made.id, made.model, revision, made.flags, time_us // 1000)


def rank(stored: bytes) -> tuple[int, int, int, int, int]:
    """What decides which of two stored predictions is the newer one: time, offset, partition, child and revision."""
    _, revision, time_us, offset, partition, child, _, _ = _HEAD.unpack_from(stored)
    return time_us, offset, partition, child, revision


def latest_keys(name: str, keys: Sequence[bytes]) -> list[bytes]:
    """Where the latest predictions of these keys are."""
    return keys_of_parts(latest_prefix(name), [keys], len(keys))


def _place(made: Provenance) -> tuple[int, int, int]:
    """Offset, partition and child, as the id names them: ``topic/partition/offset``, ``#i`` for a child."""
    record, _, child = made.id.partition("#")
    _, partition, offset = record.rsplit("/", 2)
    return int(offset), int(partition), int(child or -1)
