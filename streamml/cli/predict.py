"""``streamml predict``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from streamml.cli.options import json_option, print_json, settings_of, settings_options


@click.command("predict")
@click.argument("topology")
@click.option("--sample", type=click.Path(path_type=Path), required=True, help="Events, one JSON object a line.")
@settings_options
@json_option
def command(topology: str, sample: Path, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Score the events of a file in this process. No broker and no Redis: features have their defaults."""
    from streamml.compose.locate import locate_topology
    from streamml.ops.predict import predict, read_sample

    settings = settings_of(config, **flags)
    rows = predict(locate_topology(topology), settings, read_sample(sample))
    if as_json:
        print_json(rows)
        return
    from streamml.cli.tables import printable

    for row in rows:
        event = f"{row['event']}" if "child" not in row else f"{row['event']}#{row['child']}"
        if "prediction" in row:
            click.echo(f"{event}: {json.dumps(row['prediction'])}  [{row['flags']}]")
        elif "dead_letter" in row:
            letter = row["dead_letter"]
            click.echo(printable(f"{event}: dead letter: {letter['step']}: {letter.get('detail', letter['message'])}"))
        else:
            click.echo(f"{event}: dropped on purpose")
