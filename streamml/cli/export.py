"""``streamml export``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from streamml.cli.options import json_option, print_json, settings_of, settings_options
from streamml.cli.ranges import asked_range, range_options


@click.command("export")
@click.argument("topology")
@range_options("exported")
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

    request = Request(asked_range(flags), labels, label_key, within, predictions)
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
