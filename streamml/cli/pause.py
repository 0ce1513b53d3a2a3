"""``streamml pause``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from streamml.cli.options import json_option, settings_of, settings_options
from streamml.cli.told import how_it_was_paused, print_told, wait_option, waiting


@click.command("pause")
@click.argument("topology")
@click.option("--reason", default="by hand", show_default=True, help="Why; shown by workers, probes and `resume`.")
@wait_option
@settings_options
@json_option
def command(topology: str, reason: str, wait: float, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Have all workers of TOPOLOGY's group take no more records until `streamml resume`; restarts do not end it.

    What is on its way is finished and committed. Workers stay members of the group.
    """
    from streamml.compose.locate import locate_topology
    from streamml.ops.pause import pause

    declared = locate_topology(topology).found
    told = pause(declared, settings_of(config, **flags), reason, wait_s=wait, waiting=waiting)
    if told.changed:
        text = f"Group {told.group} is paused; what is on its way is finished and committed. `streamml resume {topology}` goes on."
    else:
        text = f"Group {told.group} was paused already, {how_it_was_paused(told.before)}"
    print_told(told, text, as_json)
