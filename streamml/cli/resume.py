"""``streamml resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from streamml.cli.options import json_option, settings_of, settings_options
from streamml.cli.told import how_it_was_paused, print_told, wait_option, waiting


@click.command("resume")
@click.argument("topology")
@wait_option
@settings_options
@json_option
def command(topology: str, wait: float, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Have the workers of TOPOLOGY's group take records again, whether they were paused by hand or by a storm of dead letters.

    After a storm, workers go on behind the records that they weighed. To have these scored again, restart the workers before:
    nothing of the storm was committed.
    """
    from streamml.compose.locate import locate_topology
    from streamml.ops.pause import resume

    told = resume(locate_topology(topology).found, settings_of(config, **flags), wait_s=wait, waiting=waiting)
    if not told.changed:
        text = f"Group {told.group} is not paused."
    elif told.before.storm is None:
        text = f"Group {told.group} goes on; it was paused {how_it_was_paused(told.before)}"
    else:
        text = (
            f"Group {told.group} goes on behind the records of the storm, which are dead letters now; workers that were "
            f"restarted since read them anew. It was paused {how_it_was_paused(told.before)}"
        )
    print_told(told, text, as_json)
