"""Feature sets: what is stored per entity, and what happens when it is not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from streamml.batch.column import ColumnType
from streamml.ports.feature_store import FeatureSchema


@dataclass(frozen=True, slots=True)
class NearCache:
    """Values that a worker keeps after it has read them, so that it need not ask for them again.

    Redis tells the worker of each value that changes, so a change shows at the next lookup, usually; `max_staleness` is what
    holds if the news do not come. It pays for sets that are read much more often than written and whose keys are few, or
    some much more frequent than others.

    Args:
        max_mb: most memory, in megabytes, of values, keys and their index; the values used lately stay.
        max_staleness: no lookup uses a value that was replaced longer ago than this when the lookup began. The worker asks
            Redis for a sign of life this often, at most.
    """

    max_mb: int = 64
    max_staleness: str = "1s"


@dataclass(frozen=True, init=False)
class FeatureSet:
    """Values precomputed per entity.

    Args:
        name: also the prefix of its columns: set ``route`` with column ``mean_delay`` adds ``route.mean_delay``.
        key: event columns that name the entity, in this order.
        columns: type of each value, numeric; ``sm.f4(default=0.2)`` declares what stands in for it. A list of types
            for one set is its schema: another order is another schema.
        ttl: age from which a value is stale: row time minus the time that the value describes. ``None``: never.
        if_missing: for an entity without a value: its defaults, a dead letter, or stop the worker.
        if_stale: the same for a value that is too old, or from the row's future.
        if_unavailable: while the store does not answer, or has another schema: wait, or use the defaults.
        kind: ``"loaded"`` from files or by a job, as versions of which one is read; or ``"streaming"``: each entity's value is
            replaced in place by a `streamml.features.FeatureWriter`, never an older one over a newer, and ``ttl`` is needed,
            as a writer that died is told by the age of its values. A row that is older than its value gets defaults, as with a
            loaded set, but does not count for ``max_default_ratio``: the writer is alive, the row is late.
        max_default_ratio: share of the latest rows that may get defaults for want of a value; above it the worker waits and
            says so, as an empty load or a wrong key must not be scored in silence (promise F3). A worker that has just started,
            and a new load, are judged by their first entities: by some 20 at 0.5 where none has a value.
        near_cache: values that a worker has read stay with it until they change; ``None``: every lookup asks for them.
    """

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, ColumnType]
    ttl: str | None
    if_missing: Literal["default", "dead_letter", "fail"]
    if_stale: Literal["default", "dead_letter", "fail"]
    if_unavailable: Literal["wait", "default"]
    max_default_ratio: float
    kind: Literal["loaded", "streaming"]
    near_cache: NearCache | None

    def __init__(
        self,
        name: str,
        *,
        key: str | tuple[str, ...],
        columns: Mapping[str, ColumnType],
        ttl: str | None = None,
        if_missing: Literal["default", "dead_letter", "fail"] = "default",
        if_stale: Literal["default", "dead_letter", "fail"] = "default",
        if_unavailable: Literal["wait", "default"] = "wait",
        max_default_ratio: float = 0.5,
        kind: Literal["loaded", "streaming"] = "loaded",
        near_cache: NearCache | None = None,
    ) -> None:
        key = (key,) if isinstance(key, str) else tuple(key)
        for field, value in locals().items():
            if field != "self":
                object.__setattr__(self, field, value)

    @property
    def schema(self) -> FeatureSchema:
        """What is stored of it."""
        return FeatureSchema(self.name, tuple(self.columns.items()), self.kind)

    @property
    def outputs(self) -> dict[str, ColumnType]:
        """Columns that a lookup of this set adds to a batch."""
        return {f"{self.name}.{column}": declared for column, declared in self.columns.items()}
