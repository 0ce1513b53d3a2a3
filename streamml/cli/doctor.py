"""``streamml doctor``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from streamml.cli.options import json_option, print_json, settings_of, settings_options


@click.command("doctor")
@settings_options
@json_option
def command(as_json: bool, config: Path | None, **flags: Any) -> int:
    """Check this machine: Python, packages, providers, Java, folders, broker, Redis. Exit code 2 if something needed is missing."""
    from streamml.ops.doctor import examine

    findings = examine(settings_of(config, **flags))
    if as_json:
        print_json([asdict(one) for one in findings])
    else:
        for one in findings:
            mark = "ok  " if one.ok else ("MISS" if one.needed else "note")
            click.echo(f"{mark}  {one.name}: {one.detail}")
    return 2 if any(one.needed and not one.ok for one in findings) else 0
