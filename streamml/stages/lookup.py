"""The operator around a feature store: one round trip for all sets of a batch (promise F1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streamml.batch.column import Array, no_unicode, sealed
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import Int, Mask, MicroBatch
from streamml.batch.outcome import Failure, Outcomes, dead_letters
from streamml.errors import FatalError, FeatureStoreDown, FeaturesUnavailable
from streamml.ports.feature_store import FeatureReply, FeatureRequest, FeatureStore
from streamml.stages.freshness import Defaults, DefaultsMeter, State, states
from streamml.topology.duration import seconds
from streamml.topology.features import FeatureSet

_EACH: Final = slice(None)


class LookUp:
    """Joins feature sets. What happened to each row goes into its flags: ``set@version`` and, if not fresh, its state."""

    outside = True
    too_large = 0

    def __init__(self, name: str, sets: Sequence[FeatureSet], store: FeatureStore, event_time: str | None) -> None:
        """
        Args:
            event_time: column with the row's time; ``None``: the record's timestamp.
        """
        self.name = name
        self.sets = tuple(sets)
        self._sets = [_Set(one) for one in sets]
        self._keys = tuple(dict.fromkeys(one.key for one in sets))
        self._store = store
        self._event_time = event_time
        # By the versions of all sets; writing the text anew costs a small batch more than looking it up.
        self._fresh_codes: dict[tuple[str, ...], int] = {}

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        try:
            entities = self._entities(batch)
        except UnicodeEncodeError:
            batch, broken = self._without_broken_keys(batch)
            if not len(batch):
                return batch, broken
            entities = self._entities(batch)
        else:
            broken = []
        asked_for = zip(self._sets, entities, strict=True)
        replies = self._replies([FeatureRequest(one.schema, asked.keys) for one, asked in asked_for])
        row_time = self._row_time(batch)
        columns: dict[str, Array] = {}
        found: list[Array | None] = []
        for one, asked, reply in zip(self._sets, entities, replies, strict=True):
            state = one.states(asked, reply, row_time)
            columns |= one.columns(asked, reply, state)
            found.append(state)
        self._weigh(found, entities, replies)
        joined = self._flagged(batch.with_columns(columns), found, replies)
        if _all_fresh(found):
            return joined, broken
        passed, ended = self._end_by_policy(joined, found)
        return passed, [*broken, *ended]

    def _entities(self, batch: MicroBatch) -> list[_Entities]:
        """Of each set; sets of one key, such as a slow and a fast one, share theirs."""
        by_key = {key: _entities(batch, key) for key in self._keys}
        return [by_key[one.declared.key] for one in self._sets]

    def _weigh(
        self, found: Sequence[Array | None], entities: Sequence[_Entities], replies: Sequence[FeatureReply | None]
    ) -> None:
        """Nothing of the batch is remembered unless all sets let it pass: otherwise all of them see it again."""
        answers = zip(self._sets, found, entities, replies, strict=True)
        weighed = [one.weigh(state, asked, reply) for one, state, asked, reply in answers]
        for one, defaults in zip(self._sets, weighed, strict=True):
            one.remember(defaults)

    def _without_broken_keys(self, batch: MicroBatch) -> tuple[MicroBatch, list[Outcomes]]:
        """Text that is no Unicode can only come from a step's function; nothing is stored under it, whatever the policy."""
        ended: list[Outcomes] = []
        for one in self._sets:
            columns = [no_unicode(batch.columns[name]) for name in one.declared.key]
            bad = np.logical_or.reduce(columns)
            key = ", ".join(one.declared.key)
            failure = Failure(
                self.name, "StepFailed", f"The key ({key}) of feature set {one.declared.name} is not valid Unicode."
            )
            ended.append(dead_letters(batch.origin.take(bad), [failure] * int(bad.sum())))
            batch = batch.take(~bad)
        return batch, ended

    def _row_time(self, batch: MicroBatch) -> Int:
        if self._event_time is None:
            return batch.origin.timestamp * 1000
        return np.asarray(batch.columns[self._event_time]).view(np.int64)

    def _replies(self, requests: list[FeatureRequest]) -> Sequence[FeatureReply | None]:
        """A reply per set; ``None`` for one that is unavailable and may be."""
        may_default = [one.declared.if_unavailable == "default" for one in self._sets]
        try:
            return self._store.lookup(requests)
        except FeatureStoreDown:
            # No batch may pay for the store's timeout more than once.
            if all(may_default):
                return [None] * len(requests)
            raise
        except FeaturesUnavailable:
            if not any(may_default):
                raise
        return [self._reply(request, may) for request, may in zip(requests, may_default, strict=True)]

    def _reply(self, request: FeatureRequest, may_default: bool) -> FeatureReply | None:
        try:
            return self._store.lookup([request])[0]
        except FeaturesUnavailable:
            if not may_default:
                raise
            return None

    def _flagged(
        self, batch: MicroBatch, found: list[Array | None], replies: Sequence[FeatureReply | None]
    ) -> MicroBatch:
        if _all_fresh(found):
            codes = np.full(len(batch), self._fresh_code(replies), np.int64)
            return MicroBatch(batch.origin.with_flags(FLAGS.joined(batch.origin.flags, codes)), batch.columns)
        mixed = np.zeros(len(batch), np.int64)
        for state in found:
            mixed = mixed * len(State) + (State.FRESH if state is None else state)
        kinds, inverse = np.unique(mixed, return_inverse=True)
        texts = [self._text(int(kind), replies) for kind in kinds]
        codes = np.array([FLAGS.code(text) for text in texts], np.int64)[inverse]
        return MicroBatch(batch.origin.with_flags(FLAGS.joined(batch.origin.flags, codes)), batch.columns)

    def _fresh_code(self, replies: Sequence[FeatureReply | None]) -> int:
        versions = tuple(reply.version for reply in replies if reply is not None)
        if versions not in self._fresh_codes:
            self._fresh_codes[versions] = FLAGS.code(self._text(State.FRESH, replies))
        return self._fresh_codes[versions]

    def _text(self, kind: int, replies: Sequence[FeatureReply | None]) -> str:
        parts: list[str] = []
        for one, reply in zip(reversed(self._sets), reversed(replies), strict=True):
            kind, state = divmod(kind, len(State))
            version = f"@{reply.version}" if reply is not None else ""
            parts.insert(0, f"{one.declared.name}{version}{State(state).flag}")
        return ",".join(parts)

    def _end_by_policy(self, batch: MicroBatch, found: list[Array | None]) -> tuple[MicroBatch, list[Outcomes]]:
        ended: list[Outcomes] = []
        over = np.zeros(len(batch), bool)
        for one, state in zip(self._sets, found, strict=True):
            if state is None:
                continue
            for failing, failure in one.failures(self.name, state, batch):
                new = failing & ~over
                ended.append(dead_letters(batch.origin.take(new), [failure] * int(new.sum())))
                over |= new
        return (batch.take(~over) if over.any() else batch), ended


@dataclass(frozen=True, slots=True)
class _Entities:
    """The distinct entities of a batch of ``rows``, and which row is about which.

    Args:
        keys: their parts as bytes.
        index: int64 ``[rows]``, place of each row's entity among the distinct ones; a slice where every row has its own.
        absent: bool ``[rows]``, rows about no entity; ``None`` where there are none.
    """

    keys: list[tuple[bytes, ...]]
    rows: int
    index: Int | slice
    absent: Mask | None


def _entities(batch: MicroBatch, key: tuple[str, ...]) -> _Entities:
    """Keys without repetition. A row with a null in its key is about no entity."""
    columns = [batch.columns[name] for name in key]
    absent = _null_in_any(columns)
    if absent is not None:
        columns = [np.ma.getdata(column)[~absent] for column in columns]
    values: list[Any] = (
        columns[0].tolist() if len(columns) == 1 else list(zip(*map(np.ndarray.tolist, columns), strict=True))
    )
    distinct: list[Any] = list(dict.fromkeys(values))
    index = _EACH if len(distinct) == len(batch) else _places(values, distinct, absent)
    parts: list[Any] = [distinct] if len(columns) == 1 else list(zip(*distinct, strict=True))
    keys = list(zip(*(_key_bytes(part) for part in parts), strict=True))
    return _Entities(keys, len(batch), index, absent)


class _Set:
    """One feature set of a lookup."""

    def __init__(self, declared: FeatureSet) -> None:
        self.declared = declared
        self.schema = declared.schema
        self._ttl_us = None if declared.ttl is None else int(seconds(declared.ttl) * 1e6)
        self._meter = DefaultsMeter(declared.max_default_ratio)
        self._columns = [(name, f"{declared.name}.{name}", column) for name, column in declared.columns.items()]

    def states(self, asked: _Entities, reply: FeatureReply | None, row_time: Int) -> Array | None:
        """A `State` per row; ``None`` where all are fresh."""
        if reply is None or not len(reply.present):
            state = State.UNAVAILABLE if reply is None else State.MISSING
            return np.full(asked.rows, state, np.int8)
        present = reply.present[asked.index]
        if asked.absent is not None:
            present &= ~asked.absent
        return states(present, row_time, reply.event_time[asked.index], self._ttl_us)

    def weigh(self, found: Array | None, asked: _Entities, reply: FeatureReply | None) -> Defaults | None:
        """The defaults of a batch; ``None`` where the set is unavailable, or nothing is known of it.

        Raises:
            FeaturesUnavailable: more rows than ``max_default_ratio`` would get them.
        """
        if reply is None or not len(reply.present):
            return None
        version, defaulted = reply.version, None if found is None else self._defaulted(found)
        entities = _without_value(asked, defaulted) if self._meter.young(version) else {}
        count = 0 if defaulted is None else int(np.count_nonzero(defaulted))
        defaults = Defaults(version, asked.rows, count, entities)
        share = self._meter.share(defaults)
        if share is not None:
            raise FeaturesUnavailable(
                f"{share:.0%} of the latest entities or rows have no usable value in version {version} of feature set "
                f"{self.declared.name}, more than max_default_ratio allows ({self.declared.max_default_ratio:.0%}). "
                f"{self._remedy()}; the worker waits and loses nothing."
            )
        return defaults

    def _remedy(self) -> str:
        if self.declared.kind == "streaming":
            return "See that its writer runs and keeps up (`streamml features show`)"
        return "Load the set anew or roll it back (`streamml features`)"

    def remember(self, defaults: Defaults | None) -> None:
        """All sets have let the batch pass."""
        if defaults is not None:
            self._meter.remember(defaults)

    def _defaulted(self, found: Array) -> Mask:
        """Which rows get defaults for want of a value, given the state of each."""
        defaulted = np.zeros(len(found), bool)
        if self.declared.if_missing == "default":
            defaulted |= found == State.MISSING
        if self.declared.if_stale == "default":
            defaulted |= found == State.STALE
            # A writer that goes on after an outage has newer values than the rows that waited for it: they would wait for ever.
            if self.declared.kind == "loaded":
                defaulted |= found == State.FROM_FUTURE
        return defaulted

    def columns(self, asked: _Entities, reply: FeatureReply | None, state: Array | None) -> dict[str, Array]:
        """The set's columns per row, read-only; defaults where a row has no fresh value."""
        stored = None if reply is None or not len(reply.present) else reply.columns
        index = asked.index
        columns: dict[str, Array] = {}
        for name, output, declared in self._columns:
            if stored is not None:
                column = stored[name][index]
            else:
                column = np.zeros((asked.rows, *declared.shape), declared.dtype)
            if state is not None and declared.default is not None:
                column = column.copy()
                column[state != State.FRESH] = declared.default
            columns[output] = sealed(column)
        return columns

    def failures(self, step: str, state: Array, batch: MicroBatch) -> list[tuple[Mask, Failure]]:
        """Rows that the policies of this set end, with the reason.

        Raises:
            FatalError: a policy is ``fail`` and a row is concerned.
        """
        name, key = self.declared.name, ", ".join(self.declared.key)
        old = (state == State.STALE) | (state == State.FROM_FUTURE)
        cases = (
            (self.declared.if_missing, state == State.MISSING, "FeatureMissing", f"has no value for its key ({key})"),
            (
                self.declared.if_stale,
                old,
                "FeatureStale",
                f"has a value that is too old, or from its future, for its key ({key})",
            ),
        )
        found: list[tuple[Mask, Failure]] = []
        for policy, concerned, error, what in cases:
            if policy == "fail" and concerned.any():
                raise FatalError(
                    f"Feature set {name} {what} in {int(concerned.sum())} of {len(state)} rows, the first at offset "
                    f"{batch.origin.offset[concerned][0]}, and the topology says to fail then. Load the set, then start again."
                )
            if policy == "dead_letter" and concerned.any():
                found.append((concerned, Failure(step, error, f"For this row feature set {name} {what}.")))
        return found


def _without_value(asked: _Entities, defaulted: Mask | None) -> dict[tuple[bytes, ...], bool]:
    """Each entity, and whether it has no usable value for one of its rows at least."""
    entities = asked.keys
    lacking = np.zeros(len(entities), bool)
    if defaulted is not None:
        about = defaulted if asked.absent is None else defaulted & ~asked.absent
        lacking[np.arange(len(entities))[asked.index][about]] = True
    return dict(zip(entities, lacking.tolist(), strict=True))


def _all_fresh(found: Sequence[Array | None]) -> bool:
    return all(state is None for state in found)


def _places(values: Sequence[Any], distinct: Sequence[Any], absent: Mask | None) -> Int:
    """Place of each row's value among the distinct ones; 0 for rows without a value."""
    place_of = {value: place for place, value in enumerate(distinct)}
    places = np.fromiter(map(place_of.__getitem__, values), np.int64, len(values))
    if absent is None:
        return places
    whole = np.zeros(len(absent), np.int64)
    whole[~absent] = places
    return whole


def _null_in_any(columns: list[Array]) -> Mask | None:
    masks = [np.ma.getmaskarray(column) for column in columns if isinstance(column, np.ma.MaskedArray)]
    absent = np.logical_or.reduce(masks) if masks else None
    return absent if absent is not None and absent.any() else None


def _key_bytes(part: Sequence[Any]) -> list[bytes]:
    """Key parts as they are stored: text as UTF-8, integers in decimal, bytes as they are."""
    if not part or isinstance(part[0], str):
        return list(map(str.encode, part))
    return list(part) if isinstance(part[0], bytes) else list(map(b"%d".__mod__, part))
