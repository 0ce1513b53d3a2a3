"""Everything about a topology that can be checked before it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamml.compose.locate import locate_topology
from streamml.compose.parts import gather
from streamml.compose.stages import guarantee_problems, plan_of
from streamml.compose.surroundings import examine
from streamml.settings.settings import Settings


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
    located = locate_topology(spelling)
    topology = located.found
    with gather(topology, located.repository, settings) as parts:
        report = Report(list(parts.problems))
        if not parts.problems:
            for model in parts.models.values():
                report.notes.append(f"Model {model.name}@{model.version}: loads and runs as it is declared")
            for number, stage in enumerate(plan_of(topology, parts.models).stages):
                names = ", ".join(step.name for step in stage.steps) or "decode"
                report.notes.append(f"Stage {number}: {names} (at most {stage.max_rows} rows a batch)")
        if connect:
            found = examine(topology, parts, settings)
            report.problems = found.everything
            report.notes += found.notes
        else:
            report.problems += guarantee_problems(topology, settings.worker)
    return report
