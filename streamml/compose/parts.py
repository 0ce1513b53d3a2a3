"""What a topology needs and opens itself: models and the client of the feature store. Opened once, however often a start is tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from streamml.compose.models import close_all, find_models
from streamml.compose.stages import needs_features
from streamml.errors import ConfigError
from streamml.ports.feature_store import FeatureStore
from streamml.ports.model import Model
from streamml.settings.settings import RedisSettings, Settings
from streamml.topology.features import FeatureSet
from streamml.topology.steps import FeatureLookup
from streamml.topology.topology import Topology


@dataclass(slots=True)
class Parts:
    """Models and feature store. Use it in a ``with`` statement, or `close` it.

    Args:
        models: by name, loaded and warm; without those that have problems.
        store: ``None`` where the topology looks up no features, or the settings name no store.
        problems: of the topology, its models and the store's settings; each a sentence with its remedy.
    """

    models: Mapping[str, Model]
    store: FeatureStore | None = None
    problems: list[str] = field(default_factory=list)

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
        close_all(self.models)


def gather(topology: Topology, repository: Path, settings: Settings, pinned: Mapping[str, str] | None = None) -> Parts:
    """Load and warm the models, and make the store's client, which connects when it is asked first.

    Args:
        repository: where the models are unless settings say otherwise.
        pinned: versions of feature sets that are read instead of the current ones.
    """
    models, problems = find_models(topology, settings.model.repository or repository, settings.model)
    parts = Parts(models, problems=problems)
    try:
        if needs_features(topology):
            # A cache that is declared wrongly cannot be made.
            parts.store = open_store(settings.redis, pinned, [] if problems else near_sets(topology))
    except ConfigError as error:
        parts.problems += error.problems
    return parts


def near_sets(topology: Topology) -> list[FeatureSet]:
    """The feature sets of which a worker keeps values."""
    lookups = (step for step in topology.steps if isinstance(step, FeatureLookup))
    return [one for step in lookups for one in step.sets if one.near_cache is not None]


def open_store(
    settings: RedisSettings, pinned: Mapping[str, str] | None = None, near: Sequence[FeatureSet] = ()
) -> FeatureStore:
    """The feature store that settings name; it connects when it is asked first.

    Args:
        pinned: versions of feature sets that are read instead of the current ones; nothing is near then.
        near: sets that have a near cache.

    Raises:
        ConfigError: the URL or an option is not valid.
    """
    from streamml.adapters.redis.near_store import NearFeatureStore
    from streamml.adapters.redis.pinned import PinnedFeatureStore
    from streamml.adapters.redis.store import RedisFeatureStore

    timeout_s = settings.timeout_ms / 1000
    if pinned:
        return PinnedFeatureStore(settings.url, pinned, timeout_s=timeout_s, options=settings.options)
    if near:
        return NearFeatureStore(settings.url, near, timeout_s=timeout_s, options=settings.options)
    return RedisFeatureStore(settings.url, timeout_s=timeout_s, options=settings.options)
