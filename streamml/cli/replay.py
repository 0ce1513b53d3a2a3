"""``streamml replay``."""

from __future__ import annotations

import click

from streamml.cli.replay_diff import diff
from streamml.cli.replay_publish import publish


@click.group("replay")
def command() -> None:
    """Score a stretch of a topic again, beside live traffic: into a topic of its own, compared before it is published."""


command.add_command(diff)
command.add_command(publish)
