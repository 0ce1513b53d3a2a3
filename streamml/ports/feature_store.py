"""The contract of a feature store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from streamml.batch.column import Array, ColumnType
from streamml.batch.frozen import frozen
from streamml.batch.microbatch import Int, Mask


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """What is stored per entity: the set's name and its columns in stored order, each with a fixed size.

    Args:
        kind: ``"loaded"`` as versions, each a whole, or ``"streaming"``: each entity is written in place.
    """

    name: str
    columns: tuple[tuple[str, ColumnType], ...]
    kind: Literal["loaded", "streaming"] = "loaded"


@frozen
class FeatureRequest:
    """Distinct entities of one set. An entity is the tuple of its key parts, each as UTF-8 or raw bytes."""

    schema: FeatureSchema
    entities: Sequence[tuple[bytes, ...]]


@frozen
class FeatureReply:
    """Values for the entities of one request, in its order.

    Args:
        version: version of the set that all values are of; ``live…`` of a streaming set, another one for each schema.
        present: bool ``[n]``; whether the entity has a whole value of the right schema.
        event_time: int64 ``[n]``; time that the value describes, µs since 1970 UTC; 0 where not present.
        columns: one read-only array ``[n, *shape]`` per column; zeros where not present.
    """

    version: str
    present: Mask
    event_time: Int
    columns: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class NearCacheUse:
    """What the cache of one set in this process has done so far.

    Args:
        hits, misses: entities asked for that were here, and that were not.
        changes: values that were forgotten as the store told that they changed.
        losses: how often all were, as the connection on which it tells was lost.
        size_bytes: in use now.
        staleness_s: what the latest lookup used from here was the newest so long before, at most.
    """

    set: str
    hits: int
    misses: int
    changes: int
    losses: int
    size_bytes: int
    staleness_s: float


class FeatureStore(Protocol):
    """Reads feature values. `lookup` may be called from several threads."""

    def lookup(self, requests: Sequence[FeatureRequest]) -> list[FeatureReply]:
        """Values for every request, each for another set, in one round trip.

        Raises:
            FeatureStoreDown: the store does not answer in time.
            FeaturesUnavailable: a set was never loaded, or its current version has another schema than the request; a
                streaming set was never written with the schema of the request.
        """
        ...

    def ping(self) -> None:
        """Whether the store answers.

        Raises:
            FeatureStoreDown: it does not.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class NearCaching(Protocol):
    """A feature store that keeps values in this process."""

    def near_caches(self) -> Sequence[NearCacheUse]:
        """What each of its caches has done. Any thread may ask."""
        ...
