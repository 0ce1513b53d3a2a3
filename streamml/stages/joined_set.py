"""One feature set of a lookup: what of it each row gets, and what its policies make of that."""

from __future__ import annotations

import numpy as np

from streamml.batch.column import Array, sealed
from streamml.batch.microbatch import Int, Mask, MicroBatch
from streamml.batch.outcome import Failure
from streamml.errors import FatalError, FeaturesUnavailable
from streamml.ports.feature_store import FeatureReply
from streamml.stages.entities import Entities
from streamml.stages.freshness import Defaults, DefaultsMeter, State, states
from streamml.topology.duration import seconds
from streamml.topology.features import FeatureSet


class JoinedSet:
    """One feature set of a lookup."""

    def __init__(self, declared: FeatureSet) -> None:
        self.declared = declared
        self.schema = declared.schema
        self._ttl_us = None if declared.ttl is None else int(seconds(declared.ttl) * 1e6)
        self._meter = DefaultsMeter(declared.max_default_ratio)
        self._columns = [(name, f"{declared.name}.{name}", column) for name, column in declared.columns.items()]

    def states(self, asked: Entities, reply: FeatureReply | None, row_time: Int) -> Array | None:
        """A `State` per row; ``None`` where all are fresh."""
        if reply is None or not len(reply.present):
            state = State.UNAVAILABLE if reply is None else State.MISSING
            return np.full(asked.rows, state, np.int8)
        present = reply.present[asked.index]
        if asked.absent is not None:
            present &= ~asked.absent
        return states(present, row_time, reply.event_time[asked.index], self._ttl_us)

    def weigh(self, found: Array | None, asked: Entities, reply: FeatureReply | None) -> Defaults | None:
        """The defaults of a batch; ``None`` where the set is unavailable, or nothing is known of it.

        Raises:
            FeaturesUnavailable: more rows than ``max_default_ratio`` would get them.
        """
        if reply is None or not len(reply.present):
            return None
        version, defaulted = reply.version, None if found is None else self._defaulted(found)
        young = self._meter.young(version)
        if defaulted is None and not young:
            # What is remembered is within the limit, and a batch without defaults only lowers the share.
            return Defaults(version, asked.rows, 0, {})
        entities = _without_value(asked, defaulted) if young else {}
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

    def columns(self, asked: Entities, reply: FeatureReply | None, state: Array | None) -> dict[str, Array]:
        """The set's columns per row, read-only as those of the reply are; defaults where a row has no fresh value."""
        stored = None if reply is None or not len(reply.present) else reply.columns
        index = asked.index
        if stored is not None and state is None and isinstance(index, slice):
            return {output: stored[name] for name, output, _ in self._columns}
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


def _without_value(asked: Entities, defaulted: Mask | None) -> dict[tuple[bytes, ...], bool]:
    """Each entity, and whether it has no usable value for one of its rows at least."""
    entities = asked.keys
    lacking = np.zeros(len(entities), bool)
    if defaulted is not None:
        about = defaulted if asked.absent is None else defaulted & ~asked.absent
        lacking[np.arange(len(entities))[asked.index][about]] = True
    return dict(zip(entities, lacking.tolist(), strict=True))
