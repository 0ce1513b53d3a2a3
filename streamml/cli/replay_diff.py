"""``streamml replay diff``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from streamml.cli.options import FiniteRange, added, json_option, print_json, settings_of, settings_options, shown_time
from streamml.cli.signals import ended_by_signals

if TYPE_CHECKING:
    from streamml.ops.replay.compare import CompareOptions
    from streamml.ops.replay.comparison import Comparison
    from streamml.ops.replay.gate import Gate
    from streamml.ops.replay.replay import Replay
    from streamml.settings.settings import Settings
    from streamml.topology.topology import Topology

F = TypeVar("F", bound=Callable[..., Any])

GATE_CLOSED: Final = 1
"""Exit code where a condition of ``--fail-if`` does not hold."""

_SHOWN: Final = (
    ("same", "same"),
    ("changed", "changed"),
    ("missing", "missing in the run"),
    ("extra", "only in the run"),
    ("dead_lettered", "newly dead-lettered"),
    ("recovered", "dead-lettered no longer"),
    ("still_dead_lettered", "dead-lettered as before"),
)


judging_options = added(
    click.option(
        "--threshold",
        "thresholds",
        multiple=True,
        metavar="FIELD=NUMBER",
        help="Count rows that crossed it. May be repeated.",
    ),
    click.option(
        "--fail-if",
        "conditions",
        multiple=True,
        metavar="CONDITION",
        help="Exit with 1 if it holds: changed, missing, extra, dead_lettered or flips, then > N or > N%. May be repeated.",
    ),
    click.option(
        "--page", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML page with plots to this file."
    ),
)
"""Adds the options that `judging` reads."""


@dataclass(frozen=True, slots=True)
class Judging:
    """How a comparison is judged and shown.

    Args:
        thresholds: by field, for flips.
        gates: conditions that make it fail.
        page: file of the HTML page; ``None``: none is written.
    """

    thresholds: Mapping[str, float]
    gates: tuple[Gate, ...]
    page: Path | None

    @property
    def asked(self) -> bool:
        """Whether anything was asked for."""
        return bool(self.thresholds or self.gates or self.page)


@dataclass(frozen=True, slots=True)
class Judged:
    """A comparison, and the conditions that do not hold, in words."""

    found: Comparison
    failed: list[str]
    page: Path | None

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**self.found.document(), "failed": self.failed, "page": self.page}


def judging(options: dict[str, Any]) -> Judging:
    """What the options ask for; takes their values out of ``options``.

    Raises:
        click.UsageError, ConfigError: one is wrong.
    """
    from streamml.ops.replay.gate import parse_gates

    thresholds, conditions, page = map(options.pop, ("thresholds", "conditions", "page"))
    if page is not None and not page.absolute().parent.is_dir():
        raise click.UsageError(f"There is no folder {page.absolute().parent} to write the page into.")
    limits = parsed_thresholds(thresholds)
    return Judging(limits, parse_gates(conditions, thresholds=bool(limits)), page)


def judged(topology: Topology, settings: Settings, run: Replay, options: CompareOptions, asked: Judging) -> Judged:
    """Compare a run, and write its page; see `streamml.ops.replay.compare.compare`.

    Args:
        options: thresholds are those of ``asked``, and who looks at stderr sees how far it is.
    """
    from dataclasses import replace

    from streamml.ops.replay.compare import compare
    from streamml.ops.replay.gate import exceeded

    with ended_by_signals(), reading() as progress:
        found = compare(topology, settings, run, replace(options, thresholds=asked.thresholds, progress=progress))
    failed = exceeded(asked.gates, found)
    if asked.page is not None:
        from streamml.ops.replay.page import page

        asked.page.write_text(page(found, failed), encoding="utf-8")
    return Judged(found, failed, asked.page)


def exit_code(told: Judged) -> int:
    """Says on stderr what does not hold."""
    for one in told.failed:
        click.echo(f"Failed: {one}.", err=True)
    return GATE_CLOSED if told.failed else 0


@click.command("diff")
@click.argument("topology")
@click.argument("run", type=click.IntRange(1))
@settings_options
@click.option("--against", default="live", show_default=True, help="`live`, or the number of another run.")
@click.option(
    "--key", default="key", show_default=True, help="Count rows by this output field; `key`: the record's key."
)
@click.option(
    "--tolerance",
    type=FiniteRange(0, 1, max_open=True),
    default=1e-6,
    show_default=True,
    help="Numbers no farther apart are the same; relative above 1.",
)
@judging_options
@click.option(
    "--memory-mb", type=click.IntRange(128), default=1024, show_default=True, help="Of the database; more goes to disk."
)
@json_option
def diff(
    topology: str,
    run: int,
    against: str,
    key: str,
    tolerance: float,
    memory_mb: int,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> int:
    """Compare the predictions of RUN with TOPOLOGY's live ones, or with another run's; nothing is written to a topic.

    Exit codes: 0 compared, 1 a condition of --fail-if holds.
    """
    from streamml.compose.locate import locate_topology
    from streamml.ops.replay.compare import CompareOptions
    from streamml.ops.replay.registry import find

    asked = judging(flags)
    declared, settings = locate_topology(topology).found, settings_of(config, **flags)
    group = settings.group or declared.name
    chosen = find(settings, group, run)
    other = None if against == "live" else find(settings, group, _number_of(against))
    options = CompareOptions(other, key=key, tolerance=tolerance, memory_mb=memory_mb)
    told = judged(declared, settings, chosen, options, asked)
    if as_json:
        print_json(told.document())
    else:
        show_judged(told)
    return exit_code(told)


def parsed_thresholds(texts: tuple[str, ...]) -> dict[str, float]:
    """``FIELD=NUMBER`` as field and number.

    Raises:
        click.UsageError: one is not.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            name = ""
        if not name.strip():
            raise click.UsageError(f"--threshold {text!r} is not FIELD=NUMBER, as in risk=0.5.")
    return found


@contextlib.contextmanager
def reading() -> Iterator[Callable[[int], None]]:
    """Tells on stderr how many records were read, where a person looks at it."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda count: None
        return
    with console.status("Reading") as status:
        yield lambda count: status.update(f"Reading: {count:,} records")


def _number_of(against: str) -> int:
    if not against.isdecimal():
        raise click.UsageError(f"--against {against!r} is neither `live` nor the number of a run.")
    return int(against)


def show_judged(told: Judged) -> None:
    """Print the tables of a comparison."""
    from streamml.cli.tables import print_table

    found = told.found
    rows = found.counts.rows
    shares = [(label, getattr(found.counts, name)) for name, label in _SHOWN]
    print_table(
        f"Replay {found.run} of {found.topology} against {found.against}: {rows:,} rows",
        ("rows", "share", "what"),
        [(f"{count:,}", f"{100 * count / rows:.2f} %" if rows else "–", label) for label, count in shares],
    )
    _show_fields(found)
    if found.flips:
        crossed = [(f"{one.up:,}", f"{one.down:,}", f"{one.field} at {one.threshold:g}") for one in found.flips]
        print_table("Rows that crossed a threshold", ("up", "down", "which"), crossed)
    if found.keys and not found.keys_tell:
        click.echo(f"No {found.key} has more than one row that differs; --key FIELD counts by another.")
    elif found.keys:
        worst = [(f"{one.rows:,}", f"{one.changed:,}", f"{one.other:,}", one.key) for one in found.keys]
        print_table(f"By {found.key}", ("rows", "changed", "other", found.key), worst)
    if found.hours:
        hours = [
            (f"{one.same:,}", f"{one.changed:,}", f"{one.other:,}", shown_time(one.start_ms / 1000))
            for one in found.hours
        ]
        print_table("By hour of source time", ("same", "changed", "other", "hour"), hours)
    for reason, count in found.letters.items():
        click.echo(f"{count:,} newly dead-lettered: {reason}")
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)
    if told.page is not None:
        click.echo(f"The page is {told.page}.")


def _show_fields(found: Comparison) -> None:
    from streamml.cli.tables import print_table

    rows = []
    for one in found.fields:
        before, after = (_spread(side) for side in (one.before, one.after))
        largest = None if one.change is None else one.change.largest_absolute
        rows.append((f"{one.changed:,}", before, after, "" if largest is None else f"{largest:.4g}", one.name))
    print_table("Fields: mean (5 % … 95 %)", ("changed", "before", "after", "largest move", "field"), rows)
    movers = [
        (one.name, mover.id, mover.key, f"{mover.before:.6g}", f"{mover.after:.6g}")
        for one in found.fields
        for mover in one.movers[:5]
    ]
    if movers:
        print_table("Biggest movers", ("field", "id", "key", "before", "after"), movers)


def _spread(side: Any) -> str:
    if side is None or side.mean is None:
        return ""
    return f"{side.mean:.4g} ({side.quantiles[1]:.4g} … {side.quantiles[-2]:.4g})"
