"""``streamml export``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from streamml.cli.options import json_option, print_json, settings_of, settings_options


@click.command("export")
@click.argument("topology")
@click.option("--from", "start", required=True, help="An offset, or a time with its zone, as 2026-01-31T10:00:00Z.")
@click.option("--to", "end", required=True, help="The same; what is there is not exported any more.")
@click.option("--by", type=click.Choice(["record", "event"]), default="record", show_default=True, help="Whose times.")
@click.option("--slack", help="With --by event: how far times of events and records may be apart, as 10m.")
@click.option("--partitions", help="NUMBER or TOPIC/NUMBER, separated by commas; default: all.")
@click.option("--what-is-left", is_flag=True, help="Go on where retention has removed a part of the range.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for Parquet files, made if missing."
)
@click.option("--labels", help="Topic of what really happened: JSON objects, keyed by --label-key.")
@click.option("--label-key", help="Field of the event or prediction that a label's key is equal to.")
@click.option("--within", help="How long after an event its label may come, as 6h.")
@click.option(
    "--predictions",
    type=click.Choice(["highest", "live"]),
    default="highest",
    show_default=True,
    help="Which revision.",
)
@settings_options
@json_option
def command(
    topology: str,
    start: str,
    end: str,
    by: Any,
    slack: str | None,
    partitions: str | None,
    what_is_left: bool,
    out: Path,
    labels: str | None,
    label_key: str | None,
    within: str | None,
    predictions: Any,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Write events of TOPOLOGY, the features that the model saw, predictions and labels as Parquet files.

    The same command goes on with what a killed one has left.
    """
    from streamml.compose.locate import locate_topology
    from streamml.ops.export.export import Request, export
    from streamml.ops.replay.span import Asked

    chosen = tuple(one.strip() for one in (partitions or "").split(",") if one.strip())
    asked = Asked(start, end, by, slack, chosen, what_is_left)
    request = Request(asked, labels, label_key, within, predictions)
    done = export(locate_topology(topology).found, settings_of(config, **flags), request, out, _tell)
    for note in done.notes:
        click.echo(note, err=True)
    if as_json:
        print_json(asdict(done))
        return
    before = "was exported before: " if done.again else "has "
    click.echo(
        f"{done.folder} {before}{done.rows:,} rows in {done.files:,} files, of {done.events:,} events, {done.features:,} rows of "
        f"features, {done.predictions:,} predictions and {done.labels:,} labels; {done.left_out:,} records were no events."
    )


def _tell(kind: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{kind}: {done:,} of {total:,} pieces", nl=done == total, err=True)
    elif done == total:
        click.echo(f"{kind}: {total:,} pieces", err=True)
