"""A run compared with the live predictions, or with another run."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streamml.errors import ConfigError
from streamml.ops.replay.comparison import Comparison, Counts
from streamml.ops.replay.database import MEMORY_MB, scratch_database
from streamml.ops.replay.matching import match
from streamml.ops.replay.measures import Measures
from streamml.ops.replay.predictions import OutputField, PredictionReader, output_fields
from streamml.ops.replay.replay import Replay
from streamml.ops.replay.sides import Loader, Side
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology

TOLERANCE: Final = 1e-6
RECORD_KEY: Final = "key"


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What to compare, and how.

    Args:
        against: another run; ``None``: the live predictions.
        thresholds: by field, for flips.
        key: field by which rows are counted; `RECORD_KEY`: the record's key.
        tolerance: numbers that are no farther apart are the same; relative above 1, absolute below. A replay forms other
            batches than the live worker, and the sums of a model differ in their last bits with the shape of a batch.
        memory_mb: of the database.
        progress: hears how many records were read.
    """

    against: Replay | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    key: str = RECORD_KEY
    tolerance: float = TOLERANCE
    memory_mb: int = MEMORY_MB
    progress: Callable[[int], None] = lambda count: None


@dataclass(frozen=True, slots=True)
class Matched:
    """Both sides in the database, matched: the tables ``run``, ``other`` and ``pairs``."""

    connection: Any
    fields: tuple[OutputField, ...]
    counts: Counts
    notes: tuple[str, ...]


def compare(topology: Topology, settings: Settings, run: Replay, options: CompareOptions) -> Comparison:
    """Compare a run.

    Raises:
        ConfigError: what is asked for cannot be; with every problem.
        TopologyError: a topic is gone.
        SourceUnavailable: the broker does not answer.
    """
    began = time.monotonic()
    check_options(topology, run, options)
    if options.against is None:
        check_live(topology)
    with matched(topology, settings, run, options) as found:
        names = [run.topic_ids.get(name, name) for name in sorted({span.topic for span in run.spans})]
        measures = Measures(found.connection, found.fields, options.tolerance, names, keys_shown=keys_shown(topology))
        flips, flipped = measures.flips(options.thresholds)
        by_name = {one.name: one for one in found.fields}
        return Comparison(
            topology.name,
            run.number,
            "live" if options.against is None else str(options.against.number),
            (run.into, topology.destination if options.against is None else options.against.into),
            options.tolerance,
            found.counts,
            measures.fields(),
            measures.letters(),
            flips,
            flipped,
            options.key,
            measures.keys(by_name.get(options.key)),
            measures.hours(),
            found.notes,
            round(time.monotonic() - began, 3),
        )


@contextlib.contextmanager
def matched(topology: Topology, settings: Settings, run: Replay, options: CompareOptions) -> Iterator[Matched]:
    """Read both sides and match them; the database is gone behind the ``with``.

    Raises:
        TopologyError: a topic is gone.
        SourceUnavailable: the broker does not answer.
    """
    ours, theirs = _sides(topology, run, options.against)
    reader = PredictionReader(topology)
    with scratch_database(options.memory_mb) as connection:
        loader = Loader(connection, settings.client(), run, reader, options.progress)
        loader.spans()
        times = loader.times() if theirs.bounded else None
        if theirs.bounded and times is None:
            loader.notes.append(
                f"All of {theirs.topic or theirs.letters} was read: the broker no longer has all records that were replayed, so their times "
                "are not known."
            )
        loader.predictions("run", ours, None)
        loader.predictions("other", theirs, times)
        loader.letters("run_letters", ours, None)
        loader.letters("other_letters", theirs, times)
        counts = match(
            connection, reader.fields, options.tolerance, partial=run.where is not None or run.within_us is not None
        )
        yield Matched(connection, reader.fields, counts, (*loader.notes, *_remarks(connection, run)))


def keys_shown(topology: Topology) -> bool:
    """Whether keys may be shown: not where they may repeat a secret field of the source."""
    secret, key = topology.source.secret, topology.sink.key
    return not secret or (key is not None and key not in secret)


def _sides(topology: Topology, run: Replay, against: Replay | None) -> tuple[Side, Side]:
    ours = Side(run.into, run.letters, run.number, run.number, bounded=False)
    if against is None:
        return ours, Side(topology.sink.topic, topology.dead_letters.topic, None, run.number, bounded=True)
    return ours, Side(against.into, against.letters, against.number, run.number, bounded=False)


def _remarks(connection: Any, run: Replay) -> list[str]:
    found: list[str] = []
    if run.state != "done":
        found.append(f"Run {run.number} is {run.state}, and not done: rows that it has not come to count as missing.")
    if run.where is not None or run.within_us is not None:
        told = "a span of event times" if run.where is None else f"a condition, {run.where}"
        found.append(f"Run {run.number} has {told}: rows that it lacks are not counted as missing.")
    for name, what in (("run", "the run's"), ("other", "the other side's")):
        odd = connection.execute(f"SELECT count(*) FROM {name} WHERE octet_length(odd) > 0").fetchone()[0]
        if odd:
            found.append(
                f"{odd:,} of {what} predictions are not what the topology's schema says; they are compared byte by byte."
            )
    return found


def check_live(topology: Topology) -> None:
    """Return if there is something live to compare with.

    Raises:
        ConfigError: predictions are in Redis alone.
    """
    if topology.sink.topic is None:
        raise ConfigError(
            f"The live predictions of {topology.name} are in Redis alone, which keeps the latest of each key and none before it: "
            "there is nothing to compare a run with but another run, as `streamml replay diff` with --against NUMBER does."
        )


def check_options(topology: Topology, run: Replay, options: CompareOptions) -> None:
    """What is told without the broker.

    Raises:
        ConfigError: what is asked for cannot be; with every problem.
    """
    problems = [
        f"Run {one.number} is of the topology {one.topology}, and not of {topology.name}."
        for one in (run, options.against)
        if one is not None and one.topology != topology.name
    ]
    if options.against is not None and options.against.number == run.number:
        problems.append(f"Run {run.number} is compared with itself; name another one, or `live`.")
    fields = {one.name: one for one in output_fields(topology)}
    known = f"the fields are {', '.join(fields)}"
    for name, limit in options.thresholds.items():
        if name not in fields:
            problems.append(f"There is no field {name!r} to have a threshold; {known}.")
        elif fields[name].secret:
            problems.append(f"The field {name!r} is secret, so nothing is told of its values.")
        elif fields[name].kind not in ("number", "whole"):
            problems.append(f"The field {name!r} has no numbers, so no threshold can be crossed.")
        elif not math.isfinite(limit):
            problems.append(f"The threshold of {name!r} is {limit}; give a finite number.")
    if options.key != RECORD_KEY and options.key not in fields:
        problems.append(
            f"There is no field {options.key!r} to count rows by; {known}, and {RECORD_KEY!r} is the record's key."
        )
    elif options.key in fields and fields[options.key].secret:
        problems.append(f"The field {options.key!r} is secret; count rows by another one.")
    if not 0 <= options.tolerance < 1:
        problems.append(f"The tolerance is {options.tolerance}; it is a number from 0 to below 1.")
    if problems:
        raise ConfigError(problems)
