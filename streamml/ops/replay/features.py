"""Which features a replay scores with: as they are now, as they were, or of given versions; set by set where wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from streamml.compose.parts import Parts
from streamml.errors import ConfigError, FatalError, FeaturesUnavailable
from streamml.ops.replay.replay import RECORDED
from streamml.ports.feature_store import FeatureRequest
from streamml.topology.features import FeatureSet
from streamml.topology.steps import FeatureLookup
from streamml.topology.topology import Topology

LIVE: Final = "live"


def usual_features(topology: Topology) -> str:
    """Sets that are loaded as they are now. Streaming ones as they were where a log has them: the store has none of their past, and
    what it has now is from the future of the events."""
    streaming = [one.name for one in _sets(topology) if one.kind == "streaming"]
    if topology.feature_log is None or not streaming:
        return LIVE
    return ",".join(f"{name}={RECORDED}" for name in dict.fromkeys(streaming))


def recorded_sets(topology: Topology, features: str) -> frozenset[str]:
    """Names of the sets whose values come from the feature log."""
    if features == RECORDED:
        return frozenset(one.name for one in _sets(topology))
    pairs = (one.partition("=") for one in features.split(","))
    return frozenset(name.strip() for name, _, version in pairs if version.strip() == RECORDED)


def pinned_versions(topology: Topology, features: str) -> dict[str, str]:
    """Versions by set of ``set=version,set=recorded``; none of what names no versions.

    Raises:
        ConfigError: it is neither, or names a set that the topology does not look up; with every problem.
    """
    if features in (LIVE, RECORDED):
        return {}
    sets = {one.name for one in _sets(topology)}
    problems: list[str] = []
    found: dict[str, str] = {}
    for one in features.split(","):
        name, equals, version = (part.strip() for part in one.partition("="))
        if not (equals and version):
            problems.append(f"--features {one!r} is none of {LIVE}, {RECORDED}, SET=VERSION, SET={RECORDED}.")
        elif name not in sets:
            problems.append(
                f"The topology looks up no feature set {name!r}; it has {', '.join(sorted(sets)) or 'none'}."
            )
        elif version != RECORDED:
            found[name] = version
    if problems:
        raise ConfigError(problems)
    return found


def check_versions(topology: Topology, parts: Parts, pinned: dict[str, str]) -> None:
    """Return if the store has all of them, as the topology declares their sets.

    Raises:
        ConfigError: it has not; with every problem.
    """
    problems: list[str] = []
    for one in _sets(topology):
        if one.name in pinned and parts.store is not None:
            try:
                parts.store.lookup([FeatureRequest(one.schema, [])])
            except (FatalError, FeaturesUnavailable) as error:
                problems.append(str(error))
    if problems:
        raise ConfigError(problems)


def _sets(topology: Topology) -> Iterator[FeatureSet]:
    return (one for step in topology.steps if isinstance(step, FeatureLookup) for one in step.sets)
