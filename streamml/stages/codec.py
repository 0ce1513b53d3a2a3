"""First and last operator: records to columns, columns to predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from streamml.batch.column import Array, object_array
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import HEADERS, KEY, VALUE, Int, MicroBatch, Origin
from streamml.batch.outcome import Failure, Kind, Outcomes, dead_letters
from streamml.engine.identity import FORMAT, HEADER
from streamml.ports.codec import Decoder, Encoder
from streamml.ports.source import Headers


class Decode:
    """Records to event columns. Records without a value follow the tombstone policy."""

    name = "decode"

    def __init__(self, decoder: Decoder, on_tombstone: Literal["drop", "dead_letter"]) -> None:
        self._decoder = decoder
        self._on_tombstone = on_tombstone

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        ended: list[Outcomes] = []
        values = batch.columns[VALUE]
        empty = np.fromiter((value is None for value in values), bool, count=len(batch))
        if empty.any():
            ended.append(self._tombstones(batch.origin.take(empty)))
            batch = batch.take(~empty)
        decoded = self._decoder.decode(batch.columns[VALUE])
        if decoded.failed:
            index = np.array([place for place, _ in decoded.failed], np.int64)
            failures = [Failure(self.name, "DecodeError", reason) for _, reason in decoded.failed]
            ended.append(dead_letters(batch.origin.take(index), failures))
            batch = batch.take(decoded.kept)
        kept = {name: batch.columns[name] for name in (KEY, HEADERS) if name in batch.columns}
        return MicroBatch(batch.origin, {**kept, **decoded.columns}), ended

    def _tombstones(self, origin: Origin) -> Outcomes:
        if self._on_tombstone == "drop":
            return Outcomes(Kind.FILTERED, origin)
        failure = Failure(self.name, "DecodeError", "The record has no value, and on_tombstone is dead_letter.")
        return dead_letters(origin, [failure] * len(origin))


@dataclass(frozen=True, slots=True)
class EncodeConfig:
    """What the last operator writes besides the value.

    Args:
        key: column that becomes the key; ``None``: the event's key.
        headers: names of event headers to pass on.
        header: whether the provenance header is written.
        model: ``name@version`` of the last model.
        revision: 0 live, a replay's number otherwise.
        latency_budget_s: age of the record from which a prediction is flagged ``late``; ``None``: never.
        max_bytes: a larger prediction is a dead letter, as its topic would refuse it.
    """

    key: str | None
    headers: tuple[str, ...] = ()
    header: bool = True
    model: str = ""
    revision: int = 0
    latency_budget_s: float | None = None
    max_bytes: int = 1_000_000


class Encode:
    """Columns to predictions: value, key and headers of every row; all rows end here."""

    name = "encode"

    def __init__(self, encoder: Encoder, prefixes: Sequence[str], config: EncodeConfig) -> None:
        self._encoder = encoder
        self._prefixes = prefixes
        self._config = config
        self._forwarded = frozenset(config.headers)

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        encoded = self._encoder.encode(batch.columns, len(batch))
        failed = dict(encoded.failed)
        limit = self._config.max_bytes
        for index, value in enumerate(encoded.values):
            if value is not None and len(value) > limit:
                failed[index] = f"The prediction has {len(value)} bytes, over the {limit} that its topic takes."
        ended: list[Outcomes] = []
        values = encoded.values
        rows = batch
        if failed:
            bad = np.array(sorted(failed), np.int64)
            reasons = [Failure(self.name, "EncodeError", failed[index], self._config.model) for index in sorted(failed)]
            ended.append(dead_letters(batch.origin.take(bad), reasons))
            good = np.ones(len(batch), bool)
            good[bad] = False
            rows, values = batch.take(good), values[good]
        ended.append(self._predictions(rows, values, now))
        return batch.take(slice(0, 0)), ended

    def _predictions(self, rows: MicroBatch, values: Array, now: float) -> Outcomes:
        origin = self._flag_late(rows.origin, now)
        headers = self._headers(origin, rows)
        return Outcomes(Kind.PREDICTION, origin, values, self._keys(rows), headers, self._config.model)

    def _flag_late(self, origin: Origin, now: float) -> Origin:
        budget = self._config.latency_budget_s
        if budget is None:
            return origin
        late = now * 1000.0 - origin.timestamp > budget * 1000.0
        added: Int = np.where(late, FLAGS.code("late"), 0).astype(np.int64)
        return origin.with_flags(FLAGS.joined(origin.flags, added))

    def _keys(self, rows: MicroBatch) -> Array:
        column = rows.columns[KEY if self._config.key is None else self._config.key]
        if column.dtype != object:
            return object_array((str(value).encode() for value in column.tolist()), len(column))
        keys = (value.encode() if isinstance(value, str) else value for value in column.tolist())
        return object_array(keys, len(column))

    def _headers(self, origin: Origin, rows: MicroBatch) -> Array:
        passed = self._passed_on(rows)
        if not self._config.header:
            return object_array(passed, len(rows))
        marks = self._marks(origin)
        if HEADERS not in rows.columns:
            return object_array([[(HEADER, mark)] for mark in marks], len(rows))
        return object_array([[*own, (HEADER, mark)] for own, mark in zip(passed, marks, strict=True)], len(rows))

    def _passed_on(self, rows: MicroBatch) -> list[Headers]:
        if HEADERS not in rows.columns:
            return [[]] * len(rows)
        wanted = self._forwarded
        return [[pair for pair in own if pair[0] in wanted] for own in rows.columns[HEADERS].tolist()]

    def _marks(self, origin: Origin) -> list[bytes]:
        """The header's value per row: ``1;id;model@version;revision;flags``."""
        heads = {slot: f"{FORMAT};{self._prefixes[slot]}" for slot in set(origin.slot.tolist())}
        tail = f";{self._config.model};{self._config.revision};"
        tails = {code: tail + FLAGS.text(code) for code in set(origin.flags.tolist())}
        rows = zip(origin.slot.tolist(), origin.offset.tolist(), origin.flags.tolist(), strict=True)
        if origin.child is None:
            return [f"{heads[slot]}{offset}{tails[flags]}".encode() for slot, offset, flags in rows]
        child = iter(origin.child.tolist())
        return [f"{heads[slot]}{offset}#{next(child)}{tails[flags]}".encode() for slot, offset, flags in rows]
