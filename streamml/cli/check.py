"""``streamml check``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from streamml.cli.options import json_option, print_json, settings_of, settings_options


@click.command("check")
@click.argument("topology")
@settings_options
@click.option("--connect", is_flag=True, help="Look at the real broker and Redis, too.")
@json_option
def command(topology: str, connect: bool, as_json: bool, config: Path | None, **flags: Any) -> int:
    """List every problem of TOPOLOGY, its models and, with --connect, of what it finds around it. Exit code 2 if any."""
    from streamml.ops.check import check

    settings = settings_of(config, **flags)
    report = check(topology, settings, connect=connect)
    if as_json:
        print_json({"topology": topology, "problems": report.problems, "notes": report.notes})
    else:
        for note in report.notes:
            click.echo(f"  {note}")
        for problem in report.problems:
            click.echo(f"  - {problem}")
        click.echo(f"{len(report.problems) or 'No'} problem{'' if len(report.problems) == 1 else 's'} in {topology}.")
    return 2 if report.problems else 0
