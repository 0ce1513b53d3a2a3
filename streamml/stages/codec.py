"""First and last operator: records to columns, columns to predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat
from operator import is_
from types import NoneType
from typing import Any, Final, Literal

import numpy as np

from streamml.batch.column import Array, no_unicode, object_array
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import HEADERS, KEY, VALUE, Int, MicroBatch, Origin
from streamml.batch.outcome import Failure, Kind, Outcomes, dead_letters
from streamml.engine.feature_log import LogSchema
from streamml.engine.identity import FORMAT, HEADER
from streamml.ports.codec import Decoder, Encoder
from streamml.ports.source import Headers

_FEW: Final = 64
_KEYLESS: Final = "no key to be kept by."


class Decode:
    """Records to event columns. Records without a value follow the tombstone policy."""

    name = "decode"
    outside = False
    too_large = 0

    def __init__(
        self,
        decoder: Decoder,
        on_tombstone: Literal["drop", "forward", "dead_letter"],
        prefixes: Sequence[str] = (),
        *,
        revision: int = 0,
        keyed: bool = False,
    ) -> None:
        """
        Args:
            prefixes: prediction id prefixes by slot, for tombstones that are passed on.
            keyed: whether a tombstone without a key cannot be passed on.
        """
        self._decoder = decoder
        self._on_tombstone = on_tombstone
        self._prefixes = prefixes
        self._revision = revision
        self._keyed = keyed

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        ended: list[Outcomes] = []
        values = batch.columns[VALUE]
        if None in values.tolist():
            empty = np.fromiter(map(is_, values, repeat(None)), bool, count=len(batch))
            ended += self._tombstones(batch.take(empty))
            batch = batch.take(~empty)
        decoded = self._decoder.decode(batch.columns[VALUE])
        if decoded.failed:
            index = np.array([place for place, _ in decoded.failed], np.int64)
            failures = [Failure(self.name, "DecodeError", reason) for _, reason in decoded.failed]
            ended.append(dead_letters(batch.origin.take(index), failures))
            batch = batch.take(decoded.kept)
        kept = {name: batch.columns[name] for name in (KEY, HEADERS) if name in batch.columns}
        return MicroBatch(batch.origin, {**kept, **decoded.columns}), ended

    def _tombstones(self, rows: MicroBatch) -> list[Outcomes]:
        if self._on_tombstone == "drop":
            return [Outcomes(Kind.FILTERED, rows.origin)]
        if self._on_tombstone == "dead_letter":
            return [self._refused(rows, "The record has no value, and on_tombstone is dead_letter.")]
        if not self._keyed:
            return [self._passed_on(rows)]
        keyless = np.fromiter(map(is_, rows.columns[KEY], repeat(None)), bool, count=len(rows))
        refused = self._refused(rows.take(keyless), f"The record has no value, and {_KEYLESS}")
        return [self._passed_on(rows.take(~keyless)), refused]

    def _refused(self, rows: MicroBatch, reason: str) -> Outcomes:
        return dead_letters(rows.origin, [Failure(self.name, "DecodeError", reason)] * len(rows))

    def _passed_on(self, rows: MicroBatch) -> Outcomes:
        origin = rows.origin.with_flags(np.full(len(rows), FLAGS.code("tombstone"), np.int64))
        marks = provenance_marks(origin, self._prefixes, "", self._revision)
        headers = object_array([[(HEADER, mark)] for mark in marks], len(rows))
        return Outcomes(
            Kind.PREDICTION, origin, object_array([None] * len(rows), len(rows)), rows.columns[KEY], headers
        )


@dataclass(frozen=True, slots=True)
class EncodeConfig:
    """What the last operator writes besides the value.

    Args:
        key: column that becomes the key; ``None``: the event's key.
        headers: names of event headers to pass on.
        provenance: whether it is written as a header, or as the fields ``prediction_id``, ``model``, ``revision`` and
            ``flags`` of the value.
        model: ``name@version`` of the last model.
        revision: 0 live, a replay's number otherwise.
        latency_budget_s: age of the row from which a prediction is flagged ``late``; ``None``: never.
        born: column with the time that the age counts from; ``None``: the record's timestamp.
        max_bytes: a larger prediction is a dead letter, as its topic would refuse it.
        keyed: whether one without a key is a dead letter, too.
        logged: the feature columns that go along into the feature log; ``None``: none.
    """

    key: str | None
    headers: tuple[str, ...] = ()
    provenance: Literal["header", "fields"] = "header"
    model: str = ""
    revision: int = 0
    latency_budget_s: float | None = None
    born: str | None = None
    max_bytes: int = 1_000_000
    logged: LogSchema | None = None
    keyed: bool = False


class Encode:
    """Columns to predictions: value, key and headers of every row; all rows end here."""

    name = "encode"
    outside = False
    too_large = 0

    def __init__(self, encoder: Encoder, prefixes: Sequence[str], config: EncodeConfig) -> None:
        self._encoder = encoder
        self._prefixes = prefixes
        self._config = config
        self._forwarded = frozenset(config.headers)

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        batch = self._flag_late(batch, now)
        columns = batch.columns if self._config.provenance == "header" else {**batch.columns, **self._fields(batch)}
        encoded = self._encoder.encode(columns, len(batch))
        failed = dict(encoded.failed)
        keys, broken = self._keys(batch)
        if self._config.keyed:
            failed |= {
                index: f"The prediction has {_KEYLESS}" for index, key in enumerate(keys.tolist()) if key is None
            }
        failed |= dict.fromkeys(broken, "The key of the prediction is not valid Unicode.")
        limit = self._config.max_bytes
        if max(map(len, filter(None, encoded.values.tolist())), default=0) > limit:
            failed |= {
                index: f"The prediction has {len(value)} bytes, over the {limit} that are taken."
                for index, value in enumerate(encoded.values)
                if value is not None and len(value) > limit
            }
        ended: list[Outcomes] = []
        values = encoded.values
        rows = batch
        if failed:
            bad = np.array(sorted(failed), np.int64)
            reasons = [Failure(self.name, "EncodeError", failed[index], self._config.model) for index in sorted(failed)]
            ended.append(dead_letters(batch.origin.take(bad), reasons))
            good = np.ones(len(batch), bool)
            good[bad] = False
            rows, values, keys = batch.take(good), values[good], keys[good]
        logged = self._config.logged
        features = None if logged is None else logged.pack(rows.columns, len(rows))
        ended.append(
            Outcomes(Kind.PREDICTION, rows.origin, values, keys, self._headers(rows), self._config.model, features),
        )
        return MicroBatch(batch.origin.take(slice(0, 0)), {}), ended

    def _flag_late(self, batch: MicroBatch, now: float) -> MicroBatch:
        budget, born = self._config.latency_budget_s, self._config.born
        if budget is None:
            return batch
        origin = batch.origin
        born_ms = origin.timestamp if born is None else np.asarray(batch.columns[born]).view(np.int64) // 1000
        late = now * 1000.0 - born_ms > budget * 1000.0
        if not late.any():
            return batch
        added: Int = np.where(late, FLAGS.code("late"), 0).astype(np.int64)
        return MicroBatch(origin.with_flags(FLAGS.joined(origin.flags, added)), batch.columns)

    def _fields(self, batch: MicroBatch) -> dict[str, Array]:
        rows, origin = len(batch), batch.origin
        return {
            "prediction_id": object_array(prediction_ids(origin, self._prefixes), rows),
            "model": object_array(repeat(self._config.model, rows), rows),
            "revision": np.full(rows, self._config.revision, np.int64),
            "flags": object_array(map(FLAGS.text, origin.flags.tolist()), rows),
        }

    def _keys(self, rows: MicroBatch) -> tuple[Array, list[int]]:
        """The keys, and the rows that have none because theirs is text that is no Unicode."""
        column = rows.columns[KEY if self._config.key is None else self._config.key]
        try:
            return self._key_bytes(column, column.tolist()), []
        except UnicodeEncodeError:
            bad = no_unicode(column)
            keys = [None if broken else key for key, broken in zip(column.tolist(), bad.tolist(), strict=True)]
            return self._key_bytes(column, keys), np.flatnonzero(bad).tolist()

    def _key_bytes(self, column: Array, keys: list[Any]) -> Array:
        kinds = set(map(type, keys))
        if kinds == {str}:
            return object_array(map(str.encode, keys), len(keys))
        if kinds <= {bytes, NoneType}:
            return column
        return object_array((None if key is None else str(key).encode() for key in keys), len(keys))

    def _headers(self, rows: MicroBatch) -> Array:
        passed = self._passed_on(rows)
        if self._config.provenance == "fields":
            return object_array(passed, len(rows))
        marks = provenance_marks(rows.origin, self._prefixes, self._config.model, self._config.revision)
        if HEADERS not in rows.columns:
            return object_array([[(HEADER, mark)] for mark in marks], len(rows))
        return object_array([[*own, (HEADER, mark)] for own, mark in zip(passed, marks, strict=True)], len(rows))

    def _passed_on(self, rows: MicroBatch) -> list[Headers]:
        if HEADERS not in rows.columns:
            return [[]] * len(rows)
        wanted = self._forwarded
        return [[pair for pair in own if pair[0] in wanted] for own in rows.columns[HEADERS].tolist()]


def prediction_ids(origin: Origin, prefixes: Sequence[str]) -> list[str]:
    """The id of every row's prediction (promise D3)."""
    rows = zip(origin.slot.tolist(), origin.offset.tolist(), strict=True)
    if origin.child is None:
        return [f"{prefixes[slot]}{offset}" for slot, offset in rows]
    child = iter(origin.child.tolist())
    return [f"{prefixes[slot]}{offset}#{next(child)}" for slot, offset in rows]


def provenance_marks(origin: Origin, prefixes: Sequence[str], model: str, revision: int) -> list[bytes]:
    """The provenance header's value per row: ``1;id;model@version;revision;flags``."""

    def frame(slot: int, flags: int) -> bytes:
        head, tail = f"{FORMAT};{prefixes[slot]}", f";{model};{revision};{FLAGS.text(flags)}"
        return f"{_literal(head)}%d{_literal(tail)}".encode()

    if origin.child is None and len(origin) > _FEW:
        marks: list[bytes] = []
        # Rows of one partition with the same flags come in stretches, so a stretch is one call into C.
        for start, end in _stretches(origin):
            write = frame(int(origin.slot[start]), int(origin.flags[start])).__mod__
            marks += map(write, origin.offset[start:end].tolist())
        return marks
    ids = prediction_ids(origin, prefixes)
    rest = [f";{model};{revision};{FLAGS.text(code)}" for code in origin.flags.tolist()]
    return [f"{FORMAT};{id}{tail}".encode() for id, tail in zip(ids, rest, strict=True)]


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def _stretches(origin: Origin) -> Iterator[tuple[int, int]]:
    """Start and end of each stretch of rows with one slot and one code of flags."""
    changes = (np.diff(origin.slot) != 0) | (np.diff(origin.flags) != 0)
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(origin)]
    return pairwise(edges) if len(origin) else iter(())
