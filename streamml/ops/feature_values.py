"""What Redis has for one entity, and what a lookup would make of it now. Nothing here prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streamml.adapters.redis import stored
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.layout import schema_lines
from streamml.adapters.redis.stored import StoredEntity
from streamml.clock import Clock, SystemClock
from streamml.errors import ConfigError, FeatureStoreDown, FeaturesUnavailable
from streamml.ops.features import TIMEOUT_S, Options
from streamml.stages.freshness import State, states
from streamml.topology.duration import seconds
from streamml.topology.features import FeatureSet

_ENDS: Final = {"dead_letter": "the row becomes a dead letter", "fail": "the worker stops"}


@dataclass(frozen=True, slots=True)
class Explained:
    """One entity of a declared set.

    Args:
        set_name: the set.
        state: what a lookup for an event of this moment finds: ``fresh``, ``missing``, ``stale``, ``from_future``, ``unavailable``.
        verdict: what the set's policies make of that, as a sentence.
        age_s: this moment minus the event time, seconds.
        ttl_s: age from which it is stale.
        found: what is stored; ``None`` where the set is unavailable.
    """

    set_name: str
    state: str
    verdict: str
    age_s: float | None = None
    ttl_s: float | None = None
    found: StoredEntity | None = None


def explain(
    sets: Sequence[FeatureSet],
    entity: Sequence[str],
    *,
    url: str,
    options: Options | None = None,
    clock: Clock | None = None,
) -> list[Explained]:
    """What each set whose key has as many parts as ``entity`` holds for it.

    Raises:
        ConfigError: the key of no set has so many parts.
        FeatureStoreDown: Redis does not answer.
    """
    fitting = [one for one in sets if len(one.key) == len(entity)]
    if not fitting:
        there = "; ".join(f"{one.name} ({', '.join(one.key)})" for one in sets) or "none"
        raise ConfigError(
            f"No feature set has a key of {len(entity)} parts; there are: {there}. Write one argument per part."
        )
    server, now = Server(url, TIMEOUT_S, options), (clock or SystemClock()).now()
    return [_explain(server, one, entity, now) for one in fitting]


def _explain(server: Server, declared: FeatureSet, entity: Sequence[str], now: float) -> Explained:
    ttl_s = None if declared.ttl is None else seconds(declared.ttl)
    try:
        found = stored.show(server, declared.name, entity, declared.schema)
    except FeatureStoreDown:
        raise
    except FeaturesUnavailable as error:
        return _unavailable(declared, str(error), ttl_s)
    if list(found.schema) != (wanted := schema_lines(declared.schema)):
        told = f"Version {found.version} has the columns {', '.join(found.schema)}, declared are {', '.join(wanted)}."
        return _unavailable(declared, told, ttl_s)
    state = _state(found, now, ttl_s)
    age_s = None if found.event_time_us is None else now - found.event_time_us / 1e6
    return Explained(declared.name, state.name.lower(), _verdict(declared, state), age_s, ttl_s, found)


def _unavailable(declared: FeatureSet, told: str, ttl_s: float | None) -> Explained:
    then = "a worker waits" if declared.if_unavailable == "wait" else _defaults(declared)
    return Explained(declared.name, State.UNAVAILABLE.name.lower(), f"{told} So {then}.", None, ttl_s)


def _state(found: StoredEntity, now: float, ttl_s: float | None) -> State:
    """As a lookup finds it, for a row of this moment."""
    present = np.array([found.event_time_us is not None])
    times = np.array([found.event_time_us or 0], np.int64)
    ttl_us = None if ttl_s is None else int(ttl_s * 1e6)
    codes = states(present, np.array([int(now * 1e6)]), times, ttl_us)
    return State.FRESH if codes is None else State(int(codes[0]))


def _verdict(declared: FeatureSet, state: State) -> str:
    if state is State.FRESH:
        return "A lookup uses it."
    policy = declared.if_missing if state is State.MISSING else declared.if_stale
    why = {State.MISSING: "There is none", State.STALE: "It is too old"}.get(
        state, "It is of a later time than the event"
    )
    return f"{why}, so {_ENDS.get(policy) or _defaults(declared)}."


def _defaults(declared: FeatureSet) -> str:
    values = ", ".join(f"{name}={kind.default!r}" for name, kind in declared.columns.items())
    return f"the row gets the defaults: {values}"
