"""The operator around a feature store: one round trip for all sets of a batch (promise F1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamml.batch.column import Array, no_unicode
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import Int, MicroBatch
from streamml.batch.outcome import Failure, Outcomes, dead_letters
from streamml.errors import FeatureStoreDown, FeaturesUnavailable
from streamml.ports.feature_store import FeatureReply, FeatureRequest, FeatureStore
from streamml.stages.entities import Entities, entities_of
from streamml.stages.freshness import State
from streamml.stages.joined_set import JoinedSet
from streamml.topology.features import FeatureSet


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
        self._sets = [JoinedSet(one) for one in sets]
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

    def _entities(self, batch: MicroBatch) -> list[Entities]:
        """Of each set; sets of one key, such as a slow and a fast one, share theirs."""
        by_key = {key: entities_of(batch, key) for key in self._keys}
        return [by_key[one.declared.key] for one in self._sets]

    def _weigh(
        self, found: Sequence[Array | None], entities: Sequence[Entities], replies: Sequence[FeatureReply | None]
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


def _all_fresh(found: Sequence[Array | None]) -> bool:
    return all(state is None for state in found)
