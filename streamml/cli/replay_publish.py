"""``streamml replay publish``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamml.cli.options import FiniteRange, json_option, print_json, settings_of, settings_options

if TYPE_CHECKING:
    from streamml.ops.replay.comparison import Counts
    from streamml.ops.replay.publish import Publication


@click.command("publish")
@click.argument("topology")
@click.argument("run", type=click.IntRange(1))
@settings_options
@click.option("--changed-only", is_flag=True, help="Leave out rows that are the same as before.")
@click.option(
    "--only-latest-per-key",
    is_flag=True,
    help="Leave out rows that are not the newest of their key by source time: for consumers that keep a key's last record.",
)
@click.option(
    "--tolerance", type=FiniteRange(0, 1, max_open=True), default=1e-6, show_default=True, help="As for `diff`."
)
@click.option("--rate", metavar="N/s", help="Most rows a second.")
@click.option("--unfinished", is_flag=True, help="Publish also what a run has that is not done.")
@click.option("--yes", is_flag=True, help="Publish. Without it nothing is written, only told.")
@json_option
def publish(
    topology: str,
    run: int,
    changed_only: bool,
    only_latest_per_key: bool,
    tolerance: float,
    rate: str | None,
    unfinished: bool,
    yes: bool,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Write the predictions of RUN into TOPOLOGY's live prediction topic, as corrections with the run's number as revision.

    Where a RedisSink keeps the latest predictions, they go there as well, or only there, unless it has newer ones.

    Tells what it would do, and does it with --yes. What was interrupted goes on where it was; what is complete is not written
    again. Live predictions that the run lacks, or dead-lettered, stay as they are.
    """
    from streamml.cli.signals import ended_by_signals
    from streamml.compose.locate import locate_topology
    from streamml.ops.replay.publish import Publisher, PublishOptions
    from streamml.ops.replay.registry import find

    per_second = parsed_rate(rate)
    declared, settings = locate_topology(topology).found, settings_of(config, **flags)
    chosen = find(settings, settings.group or declared.name, run)
    with ended_by_signals(), _told() as progress:
        options = PublishOptions(
            changed_only=changed_only,
            only_latest_per_key=only_latest_per_key,
            rate=per_second,
            unfinished=unfinished,
            tolerance=tolerance,
            progress=progress,
        )
        with Publisher.open(declared, settings, chosen, options) as publisher:
            found, was_complete = publisher.plan, publisher.plan.complete
            if yes:
                found = publisher.write()
    if as_json:
        print_json({**found.document(), "dry_run": not yes})
    else:
        _show(found, was_complete=was_complete, dry_run=not yes)


def parsed_rate(text: str | None) -> float | None:
    """``N/s`` as rows a second.

    Raises:
        click.UsageError: it is none.
    """
    if text is None:
        return None
    read = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(?:/s)?", text.strip())
    if read is None or float(read[1]) <= 0:
        raise click.UsageError(f"--rate {text!r} is no rate; write it as 500/s.")
    return float(read[1])


@contextmanager
def _told() -> Iterator[Callable[[str, int], None]]:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, count: None
        return
    with console.status("Reading") as status:
        yield lambda what, count: status.update(f"{count:,} {what}")


def _show(found: Publication, *, was_complete: bool, dry_run: bool) -> None:
    if was_complete:
        click.echo(f"Run {found.run} is published in {found.topic} already ({found.selection}); nothing is written.")
        return
    if found.counts is not None:
        _show_counts(found, found.counts)
    if dry_run:
        done = found.chosen - found.left
        went = f"; {done:,} are published already" if done else ""
        click.echo(
            f"{found.left:,} predictions would be written to {found.topic} with revision {found.run} ({found.selection}){went}. "
            "Nothing was written; add --yes to publish."
        )
        return
    click.echo(
        f"{found.written:,} predictions are written to {found.topic} with revision {found.run} ({found.selection})."
    )
    if found.overtaken:
        click.echo(f"{found.overtaken:,} were left out, as a newer prediction of their key came meanwhile.")


def _show_counts(found: Publication, counts: Counts) -> None:
    click.echo(
        f"Run {found.run} against {found.topic}: {counts.changed:,} changed, {counts.same:,} the same, "
        f"{counts.extra + counts.recovered:,} only in the run."
    )
    left = counts.missing + counts.dead_lettered
    if left:
        click.echo(
            f"{counts.missing:,} live predictions are missing in the run and {counts.dead_lettered:,} are newly "
            "dead-lettered: they stay as they are, as nothing takes a prediction back."
        )
