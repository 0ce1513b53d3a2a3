"""What a replay would do, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from streamml.clock import SystemClock
from streamml.compose.locate import Located
from streamml.compose.parts import Parts, gather
from streamml.compose.recorded import log_problems
from streamml.compose.surroundings import examine_parts
from streamml.errors import ConfigError
from streamml.ops.pause import who
from streamml.ops.replay.condition import condition
from streamml.ops.replay.features import check_versions, pinned_versions, recorded_sets, usual_features
from streamml.ops.replay.registry import replays
from streamml.ops.replay.replay import RECORDED, Replay
from streamml.ops.replay.span import Asked, Gone, find_spans
from streamml.ops.replay.target import check_target, default_target, letters_of
from streamml.ops.replay.topology import model_versions, with_models
from streamml.ports.source import TopicPartition
from streamml.schema.contract import Contract
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be replayed.

    Args:
        models: each ``name=version``, or a version of the last model; others are as the topology says.
        features: ``"live"``, ``"recorded"``: as they were; or ``set=version`` and ``set=recorded``, several separated by commas;
            ``None``: see `usual_features`.
        where: condition on events, see `streamml.ops.replay.condition`.
        into: topic of predictions; ``None``: one of the replay's own.
        max_ratio: share of dead letters past which it stops; ``None``: as the topology says.
        rate: records a second; ``None``: as many as can be.
    """

    range: Asked
    models: tuple[str, ...] = ()
    features: str | None = None
    where: str | None = None
    into: str | None = None
    max_ratio: float | None = None
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A replay that has no number yet.

    Args:
        draft: its record to be.
        gone: what is beyond retention.
        seconds: how long it may take; ``None``: nothing says.
        told_by: what the estimate rests on, for people.
    """

    draft: Replay
    gone: tuple[Gone, ...]
    seconds: float | None
    told_by: str

    @property
    def events(self) -> int:
        """Offsets in the range; there may be fewer events."""
        return sum(span.end - span.start for span in self.draft.spans)


@contextmanager
def planned(located: Located[Topology], settings: Settings, wanted: Wanted) -> Iterator[tuple[Plan, Parts]]:
    """The plan, and what the topology needs to carry it out; nothing is written.

    Raises:
        ConfigError: something that was asked for cannot be; with every problem that could be found.
        SourceUnavailable, FeaturesUnavailable: what was asked does not answer.
    """
    topology, now_ms = located.found, int(SystemClock().now() * 1000)
    versions = _checked_words(topology, wanted)
    found = find_spans(topology.source, settings, wanted.range, now_ms)
    others = replays(settings, settings.group or topology.name)
    into, letters = default_target(topology) if wanted.into is None else (wanted.into, letters_of(wanted.into))
    features = wanted.features or usual_features(topology)
    draft = Replay(
        0,
        topology.name,
        found.spans,
        dict(found.topic_ids),
        into,
        letters,
        versions,
        features,
        wanted.where,
        who(),
        now_ms,
        within_us=found.within_us,
        max_ratio=topology.dead_letters.max_ratio if wanted.max_ratio is None else wanted.max_ratio,
    )
    check_target(topology, settings, draft, others)
    if recorded_sets(topology, features) and (wrong := _not_recorded(topology, settings, draft)):
        raise ConfigError(wrong)
    with gathered(topology, located.repository, settings, versions, features) as parts:
        draft = replace(draft, models={name: model.version for name, model in parts.models.items()})
        yield _estimated(draft, found.gone, wanted.rate, others), parts


@contextmanager
def gathered(
    topology: Topology, repository: Path, settings: Settings, versions: dict[str, str], features: str = "live"
) -> Iterator[Parts]:
    """Models of these versions and the feature store, held against the topology; a store that nobody asks is not looked at.

    Raises:
        ConfigError: a version is gone, or does not fit; with every problem.
        FeaturesUnavailable: the store does not answer.
    """
    versioned = with_models(topology, versions)
    pinned = pinned_versions(topology, features)
    with gather(versioned, repository, settings, pinned) as parts:
        asked = parts if features != RECORDED else Parts(parts.models, problems=parts.problems)
        examine_parts(versioned, asked).raise_problems()
        check_versions(topology, parts, pinned)
        yield parts


def _not_recorded(topology: Topology, settings: Settings, draft: Replay) -> list[str]:
    stretches = {TopicPartition(span.topic, span.partition): (span.start, span.end) for span in draft.spans}
    return log_problems(topology, settings, stretches, draft.topic_ids)


def _checked_words(topology: Topology, wanted: Wanted) -> dict[str, str]:
    """Versions of models; all that can be told without a broker is checked."""
    problems: list[str] = []
    versions: dict[str, str] = {}
    try:
        versions = model_versions(topology, wanted.models)
        with_models(topology, versions)
    except ConfigError as error:
        problems += error.problems
    try:
        if wanted.where is not None:
            condition(wanted.where, Contract.of(topology.source.schema).columns)
    except ConfigError as error:
        problems += error.problems
    try:
        pinned_versions(topology, wanted.features or usual_features(topology))
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    return versions


def _estimated(draft: Replay, gone: tuple[Gone, ...], rate: float | None, others: list[Replay]) -> Plan:
    events = sum(span.end - span.start for span in draft.spans)
    seconds, told_by = None, "no replay has run yet"
    for one in others:
        took_s = 0.0 if one.ended_ms is None else (one.ended_ms - one.started_ms) / 1000
        if one.state == "done" and took_s > 0 and one.counts.get("consumed"):
            seconds, told_by = events / one.counts["consumed"] * took_s, f"as quick as replay {one.number}"
    if rate is not None and (seconds is None or events / rate > seconds):
        seconds, told_by = events / rate, f"{rate:,.0f} a second at most"
    return Plan(draft, gone, seconds, told_by)
