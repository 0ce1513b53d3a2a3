"""Writes values of a streaming feature set in place: many entities per round trip, never an older event time over a newer."""

from __future__ import annotations

import json
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from streamml.adapters.redis.catalogue import Catalogue, Command, Pointer, Version, change, pack_pointer, put
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.keys import entity_prefix, keys_of_parts, writers_key
from streamml.adapters.redis.layout import Layout, schema_lines, writer_number
from streamml.adapters.redis.line import SCRIPTS_IN_FLIGHT, Line, rows_per_script, script_calls
from streamml.adapters.redis.nodes import Nodes
from streamml.adapters.redis.rows import Rows
from streamml.clock import Clock, SystemClock
from streamml.engine.retry import Backoff
from streamml.errors import FeatureStoreDown, FeaturesUnavailable

# The old value comes back from the SET that replaces it (Redis 6.2, Valkey): one command per entity but for those that have
# to be put back, which nobody sees, as a script is one moment.
REPLACE: Final = """\
local call, sub, unpack, keep, older = redis.call, string.sub, struct.unpack, ARGV[1], 0
local function set(key, value)
  if keep == '0' then return call('SET', key, value, 'GET') end
  return call('SET', key, value, 'PX', keep, 'GET')
end
"""
"""What scripts begin with that put an older value back: `set` stores for ``ARGV[1]`` ms, 0 for ever, and gives what was there."""

# The event time is compared as two halves: a number of Lua has 53 bits. The same event time stays, so that a repeated call, and
# a correction, get through; a value of another layout goes.
SCRIPT: Final = (
    REPLACE
    + """\
for i = 1, #KEYS do
  local new = ARGV[i + 1]
  local old = set(KEYS[i], new)
  if old and #old >= 16 and sub(old, 1, 8) == sub(new, 1, 8) then
    local old_low, old_high = unpack('<I4i4', old, 9)
    local low, high = unpack('<I4i4', new, 9)
    if high < old_high or (high == old_high and low < old_low) then
      set(KEYS[i], old)
      older = older + 1
    end
  end
end
return older
"""
)
_SIGN_OF_LIFE_S: Final = 30.0
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stream:
    """What is written, and by whom.

    Args:
        layout: of a streaming set.
        writer: name of who writes, for people.
        keep_ms: how long a value is kept after it was written last; 0: for ever.
        retry_for_s: how long a write is tried again while the server does not answer, counted from its last answer.
    """

    layout: Layout
    writer: str
    keep_ms: int
    retry_for_s: float


@dataclass(frozen=True, slots=True)
class _Chunk:
    keys: list[bytes]
    packed: list[bytes]
    rows: int


class StreamWriter:
    """Writes rows of one set; for one thread at a time. Nothing is connected before the first write."""

    def __init__(self, server: Server, stream: Stream, clock: Clock | None = None) -> None:
        self._nodes = Nodes(server)
        self._stream = stream
        self._clock = clock or SystemClock()
        self._pipe = _Pipe(self._nodes, stream, self._declare, self._clock)
        self._declared_at = float("-inf")

    def write(self, rows: Rows) -> int:
        """Write all rows; returns how many were not, as their entity had a value of a later event time.

        Raises:
            FeaturesUnavailable: the server did not answer for longer than ``retry_for_s``, or refused to store. Rows that
                were not acknowledged may be there or not; write them again.
        """
        if self._clock.now() - self._declared_at > _SIGN_OF_LIFE_S:
            self._pipe.close()
        return self._pipe.run(self._chunks(rows), len(rows.event_time))

    def close(self) -> None:
        self._pipe.close()
        self._nodes.close()

    def _chunks(self, rows: Rows) -> Iterator[_Chunk]:
        layout, stream = self._stream.layout, self._stream
        prefix = entity_prefix(layout.schema.name, layout.live_version)
        written_at, number = int(self._clock.now() * 1e6), writer_number(stream.writer)
        most = rows_per_script(layout.size)
        step = most * (SCRIPTS_IN_FLIGHT if self._nodes.clustered else 1)
        for start in range(0, len(rows.event_time), step):
            event_time = rows.event_time[start : start + step]
            count, part = len(event_time), slice(start, start + step)
            keys = keys_of_parts(prefix, [texts[part] for texts in rows.parts], count)
            columns = {name: column[part] for name, column in rows.columns.items()}
            values = layout.encode(columns, event_time, written_at, number)
            yield _Chunk(*script_calls(self._nodes, self._pipe.script, keys, stream.keep_ms, values, most), count)

    def _declare(self) -> None:
        """Say that the set is written with this schema, and by whom; without that no reader takes it for there."""
        stream, now = self._stream, self._clock.now()
        layout, name = stream.layout, stream.layout.schema.name
        version, lines = layout.live_version, tuple(schema_lines(layout.schema))

        def decide(catalogue: Catalogue) -> list[Command]:
            known = catalogue.find(version)
            fresh = Version(version, "live", layout.schema_hash, lines, known.loaded_at if known else now, now)
            pointer = pack_pointer(Pointer(version, layout.schema_hash, lines, fresh.loaded_at))
            about = json.dumps({"name": stream.writer, "version": version, "updated_at": now}, separators=(",", ":"))
            return [
                put(name, replace(fresh, source=stream.writer)),
                ("SET", layout.pointer, pointer, "NX"),
                ("HSET", writers_key(name), f"{writer_number(stream.writer):08x}", about),
            ]

        change(self._nodes, name, decide)
        self._declared_at = now


class _Pipe:
    """Sends chunks without waiting for each, a bounded number at a time; after an outage those that were not answered
    are sent again, which does no harm: no value replaces a newer one."""

    script = b""

    def __init__(self, nodes: Nodes, stream: Stream, declare: Callable[[], None], clock: Clock) -> None:
        self._nodes = nodes
        self._stream = stream
        self._declare = declare
        self._clock = clock
        self._line: Line | None = None
        self._waiting: deque[_Chunk] = deque()
        self._failing_since: float | None = None
        self._attempts = 0

    def run(self, chunks: Iterator[_Chunk], rows: int) -> int:
        """Send all of them and wait; returns the sum of the replies."""
        older = done = 0
        try:
            if self._line is None:
                self._mend(None)
            for chunk in chunks:
                if len(self._waiting) >= SCRIPTS_IN_FLIGHT:
                    older, done = older + self._answer(), done + self._waiting.popleft().rows
                self._waiting.append(chunk)
                self._send(chunk)
            while self._waiting:
                older, done = older + self._answer(), done + self._waiting.popleft().rows
        except FeaturesUnavailable as error:
            self._drop()
            raise FeaturesUnavailable(self._given_up(error, done, rows)) from None
        except BaseException:
            self._drop()
            raise
        return older

    def close(self) -> None:
        """Let go of the connection; the next `run` makes another one."""
        self._drop()

    def _send(self, chunk: _Chunk) -> None:
        assert self._line is not None
        try:
            self._line.send(chunk.keys, chunk.packed)
        except FeatureStoreDown as error:
            self._mend(error)

    def _answer(self) -> int:
        """The reply to the oldest chunk."""
        while True:
            assert self._line is not None
            try:
                reply = sum(self._line.read())
            except FeatureStoreDown as error:
                self._mend(error)
            else:
                self._failing_since, self._attempts = None, 0
                return reply

    def _mend(self, error: FeaturesUnavailable | None) -> None:
        """Connect, declare, and send again what was not answered; try until the bound.

        Raises:
            FeaturesUnavailable: the last error, past the bound.
        """
        while True:
            if error is not None:
                self._wait(error)
            try:
                self.script = self._nodes.everywhere("SCRIPT", "LOAD", SCRIPT)[0]
                self._declare()
                self._line = self._renewed()
                for chunk in self._waiting:
                    self._line.send(chunk.keys, chunk.packed)
            except FeaturesUnavailable as again:
                error = again
            else:
                return

    def _renewed(self) -> Line:
        if self._line is not None:
            self._line.close()
        return Line(self._nodes)

    def _wait(self, error: FeaturesUnavailable) -> None:
        now = self._clock.now()
        if self._failing_since is None:
            self._failing_since = now
            _LOG.warning(
                "Values for streaming feature set %r wait for Redis: %s", self._stream.layout.schema.name, error
            )
        self._attempts += 1
        if now - self._failing_since >= self._stream.retry_for_s:
            raise error
        threading.Event().wait(Backoff().delay(self._attempts, random.random()))  # noqa: S311  jitter

    def _drop(self) -> None:
        self._waiting.clear()
        self._failing_since, self._attempts = None, 0
        if self._line is not None:
            self._line.close()
            self._line = None

    def _given_up(self, error: FeaturesUnavailable, done: int, rows: int) -> str:
        return (
            f"{error} Given up after {self._stream.retry_for_s:g} s: {done:,} of {rows:,} rows for streaming feature set "
            f"{self._stream.layout.schema.name!r} are acknowledged, the others may be stored or not. Write them again; what is "
            "newer in Redis stays."
        )
