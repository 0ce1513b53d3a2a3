"""Reads feature values of given versions, whichever are current."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streamml.adapters.redis.catalogue import Version, read_catalogue
from streamml.adapters.redis.keys import entity_keys, entity_prefix
from streamml.adapters.redis.layout import Layout
from streamml.adapters.redis.store import RedisFeatureStore
from streamml.errors import FatalError
from streamml.ports.feature_store import FeatureReply, FeatureRequest


class PinnedFeatureStore(RedisFeatureStore):
    """The port `FeatureStore` with some sets at versions of their own; the others are read as they are current.

    A version that is pruned meanwhile must not look like one without values: whoever prunes says so in the catalogue before
    anything is deleted, so that is asked for behind every value that was not there.
    """

    def __init__(
        self,
        url: str,
        pinned: Mapping[str, str],
        *,
        timeout_s: float = 1.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            pinned: version by set; the other arguments are those of `RedisFeatureStore`.
        """
        super().__init__(url, timeout_s=timeout_s, options=options)
        self._pinned = dict(pinned)
        self._vouched: set[str] = set()

    def lookup(self, requests: Sequence[FeatureRequest]) -> list[FeatureReply]:
        """Values for every request, see the port.

        Raises:
            FatalError: a version is gone, or has another schema than the request.
            FeaturesUnavailable: as `RedisFeatureStore.lookup`.
        """
        others = iter(super().lookup([one for one in requests if one.schema.name not in self._pinned]))
        return [self._of_version(one) if one.schema.name in self._pinned else next(others) for one in requests]

    def _of_version(self, request: FeatureRequest) -> FeatureReply:
        name, layout = request.schema.name, self._layout(request.schema)
        version = self._pinned[name]
        if name not in self._vouched:
            self._vouch(layout, version)
        keys = entity_keys(entity_prefix(name, version), request.entities)
        decoded = layout.decode(self._nodes.mget(keys) if keys else [])
        if not decoded.present.all():
            self._vouch(layout, version)
        return FeatureReply(version, decoded.present, decoded.event_time, decoded.columns)

    def _vouch(self, layout: Layout, version: str) -> None:
        name = layout.schema.name
        catalogue = read_catalogue(self._nodes, name)
        found: Version | None = catalogue.find(version)
        if found is None or found.state != "complete":
            there = ", ".join(one.version for one in catalogue.complete()) or "none"
            raise FatalError(f"Feature set {name!r} has no version {version!r} (any more); there are {there}.")
        if found.schema_hash != layout.schema_hash:
            raise FatalError(
                f"Version {version!r} of feature set {name!r} has another schema ({', '.join(found.columns)}) than the topology "
                "declares."
            )
        self._vouched.add(name)
