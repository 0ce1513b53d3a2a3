"""``streamml config``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from streamml.cli.options import effective_settings, json_option, print_json, settings_options


@click.group("config")
def command() -> None:
    """Show the settings that hold."""


@command.command("show")
@settings_options
@json_option
def show(as_json: bool, config: Path | None, **flags: Any) -> None:
    """Every setting, its value (secrets masked), where it comes from, and what it is for.

    In the environment a setting is STREAMML_ and its name in capitals, with _ for a dot: STREAMML_WORKER_DRAIN_MS.
    """
    from streamml.settings.sources import described

    shown = described(effective_settings(config, **flags))
    if as_json:
        print_json({one.name: {"value": one.value, "from": one.origin} for one in shown})
        return
    from streamml.cli.tables import print_table

    title = "Settings (in the environment worker.drain_ms is STREAMML_WORKER_DRAIN_MS, and so on)"
    print_table(title, ("name", "value", "from", "for"), [(one.name, one.value, one.origin, one.help) for one in shown])
