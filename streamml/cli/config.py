"""``streamml config``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from streamml.cli.options import json_option, print_json, settings_options


@click.group("config")
def command() -> None:
    """Show the settings that hold."""


@command.command("show")
@settings_options
@json_option
def show(as_json: bool, config: Path | None, **flags: Any) -> None:
    """Every setting, its value (secrets masked), where it comes from, and what it is for."""
    from streamml.settings.sources import described, read_settings

    named = {"redis.url" if name == "redis_url" else name: value for name, value in flags.items()}
    shown = described(read_settings(named, file=config))
    if as_json:
        print_json({one.name: {"value": one.value, "from": one.origin} for one in shown})
        return
    from streamml.cli.tables import print_table

    print_table(
        "Settings", ("name", "value", "from", "for"), [(one.name, one.value, one.origin, one.help) for one in shown]
    )
