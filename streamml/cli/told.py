"""What `pause` and `resume` have in common."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from streamml.cli.options import print_json, shown_time

if TYPE_CHECKING:
    from streamml.ops.pause import Told
    from streamml.ports.control import GroupState

wait_option = click.option(
    "--wait",
    type=click.FloatRange(0, 86_400),
    default=30.0,
    show_default=True,
    help="Seconds to try when the broker does not answer.",
)


def waiting(reason: str) -> None:
    """Progress, while the broker does not answer."""
    click.echo(f"Trying again: {reason}", err=True)


def how_it_was_paused(state: GroupState) -> str:
    """By whom, when and why."""
    return f"by {state.by} at {shown_time(state.time_ms / 1000)}: {state.reason}."


def print_told(told: Told, text: str, as_json: bool) -> None:
    """What was done."""
    if as_json:
        print_json({**asdict(told), "paused": told.now.paused})
    else:
        click.echo(text)
