"""Everything about a topology that can be checked before it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamml.compose.locate import Located, locate_topology
from streamml.compose.models import load_models
from streamml.compose.stages import needs_features, plan_of
from streamml.compose.surroundings import feature_problems, find_topics, sample_problems
from streamml.compose.worker import open_store
from streamml.errors import ConfigError, StreamMLError
from streamml.ports.model import Model
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology


@dataclass(slots=True)
class Report:
    """What a check found.

    Args:
        problems: each a sentence with its remedy.
        notes: what was found in order, for people.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(spelling: str, settings: Settings, *, connect: bool) -> Report:
    """Look at a topology, its models and, with ``connect``, at broker, topics, features and a sample of the input.

    Raises:
        TopologyError: ``spelling`` names no topology that loads.
    """
    report = Report()
    located = locate_topology(spelling)
    models = _models(located, settings, report)
    try:
        if models is not None:
            for number, stage in enumerate(plan_of(located.found, models).stages):
                names = ", ".join(step.name for step in stage.steps)
                report.notes.append(f"Stage {number}: {names} (at most {stage.max_rows} rows a batch)")
        if connect:
            _connected(located.found, settings, report)
    finally:
        for model in (models or {}).values():
            model.close()
    return report


def _models(located: Located[Topology], settings: Settings, report: Report) -> dict[str, Model] | None:
    try:
        models = load_models(located.found, settings.model.repository or located.repository, settings.model)
    except ConfigError as error:
        report.problems += error.problems
        return None
    for model in models.values():
        report.notes.append(f"Model {model.name}@{model.version}: loads, runs, matches its model.toml")
    return models


def _connected(topology: Topology, settings: Settings, report: Report) -> None:
    try:
        topics = find_topics(topology, settings)
        report.notes += [f"Topic {one.name}: {one.partitions} partitions" for one in topics.values()]
        report.problems += sample_problems(topology, settings)
    except ConfigError as error:
        report.problems += error.problems
    except StreamMLError as error:
        report.problems.append(f"{settings.brokers}: {error}")
    if needs_features(topology):
        _features(topology, settings, report)


def _features(topology: Topology, settings: Settings, report: Report) -> None:
    store = None
    try:
        store = open_store(settings.redis)
        found = feature_problems(topology, store)
        report.problems += found
        if not found:
            report.notes.append("Feature sets: every one that has to be there is")
    except ConfigError as error:
        report.problems += error.problems
    except StreamMLError as error:
        report.problems.append(str(error))
    finally:
        if store is not None:
            store.close()
