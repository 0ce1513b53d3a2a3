"""Problems of feature sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from streamml.batch.column import default_problem
from streamml.topology.check_models import Flow
from streamml.topology.features import FeatureSet, NearCache
from streamml.topology.sentences import KEPT_FOR_S, choice_problems, duration_problems, name_problem
from streamml.topology.steps import FeatureLookup, Step

KEY_KINDS: Final = ("text", "bytes", "i4", "i8")
EVENT_TIME: Final = "event_time"
"""Where the writer of a streaming set finds the time of each row."""


def shared_set_problems(steps: Sequence[Step]) -> Iterator[str]:
    """A set is stored under its name, and its columns begin with it."""
    names = Counter(one.name for step in steps if isinstance(step, FeatureLookup) for one in step.sets)
    for name, count in names.items():
        if count > 1:
            yield (
                f"Feature set {name!r} is looked up {count} times, and its columns are there once; leave the others out, or store "
                "the values under a name for each key."
            )


def set_problems(where: str, one: FeatureSet, flow: Flow) -> Iterator[str]:
    """What is wrong with one set of a lookup that the columns ``flow`` come to; ``where`` begins each sentence."""
    if wrong := name_problem(f"{where.partition(':')[0]}: feature set", one.name):
        yield wrong
    yield from stored_set_problems(where, one)
    for name in one.key:
        declared = flow.get(name)
        if declared is not None and (declared.kind not in KEY_KINDS or declared.shape):
            yield f"{where} has the key {name!r} of type {declared}; a key is text, bytes or an integer: make one by a Transform."
    policies = {"if_missing": one.if_missing, "if_stale": one.if_stale}
    for policy, value in policies.items():
        yield from choice_problems(f"{where}: {policy}", value, ("default", "dead_letter", "fail"))
    yield from choice_problems(f"{where}: if_unavailable", one.if_unavailable, ("wait", "default"))
    if not 0 <= one.max_default_ratio <= 1:
        yield f"{where} has max_default_ratio {one.max_default_ratio}; it has to be from 0 to 1."
    yield from choice_problems(f"{where}: kind", one.kind, ("loaded", "streaming"))
    if one.near_cache is not None:
        yield from _near_cache_problems(where, one.near_cache)
    yield from _column_problems(where, one)


def stored_set_problems(where: str, one: FeatureSet) -> Iterator[str]:
    """What is wrong with a set for those that look it up and for its writer; ``where`` begins each sentence."""
    if not one.key:
        yield f"{where} has no key; name the columns that say which entity a row is about."
    yield from duration_problems(f"{where}: ttl", one.ttl, KEPT_FOR_S)
    if one.kind == "streaming" and one.ttl is None:
        yield f"{where} is streaming and has no ttl, so that nobody would see that its writer died; give it one, such as '3h'."
    if one.kind == "streaming" and EVENT_TIME in (*one.key, *one.columns):
        yield f"{where} is streaming and has a column {EVENT_TIME!r}, by which writers give each row's time; give it another name."


def _column_problems(where: str, one: FeatureSet) -> Iterator[str]:
    if not one.columns:
        yield f"{where} has no columns; declare what is stored."
    defaults = "default" in (one.if_missing, one.if_stale, one.if_unavailable)
    for name, declared in one.columns.items():
        if not name or "\n" in name or 0 in declared.shape:
            yield f"{where} has the column {name!r} of type {declared}, which cannot be stored; give it a name and at least one value."
        if not declared.numeric and declared.kind != "timestamp":
            yield f"{where} has the column {name!r} of type {declared}; only numbers, times and vectors of them are stored."
        elif declared.nullable:
            yield f"{where} has the nullable column {name!r}; stored values have no null: declare a default instead."
        elif defaults and declared.default is None:
            yield f"{where} has the column {name!r} without a default, and a policy is 'default'; write {declared.kind}(default=…)."
        elif declared.default is not None and (wrong := default_problem(declared)):
            yield f"{where} has the column {name!r} with a default that {wrong}: {declared.default!r}; correct it."


def _near_cache_problems(where: str, near: NearCache) -> Iterator[str]:
    if near.max_mb < 1:
        yield f"{where}: near_cache has max_mb {near.max_mb}; it has to be at least 1."
    yield from duration_problems(f"{where}: near_cache: max_staleness", near.max_staleness)
