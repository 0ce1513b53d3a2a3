"""``streamml topics``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from streamml.cli.options import json_option, print_json, settings_of, settings_options


@click.group("topics")
def command() -> None:
    """Make the topics of a topology."""


@command.command("create")
@click.argument("topology")
@settings_options
@click.option(
    "--partitions", type=click.IntRange(1, 10_000), default=4, show_default=True, help="Of input and prediction topics."
)
@click.option("--replication", type=click.IntRange(-1, 100), default=-1, help="Copies; -1: the broker's default.")
@json_option
def create(topology: str, partitions: int, replication: int, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Make TOPOLOGY's input, prediction, dead-letter and control topics; those that exist are left as they are."""
    from streamml.compose.locate import locate_topology
    from streamml.ops.topics import create_topics

    told = click.get_current_context().get_parameter_source("partitions") is not ParameterSource.DEFAULT
    settings = settings_of(config, **flags)
    made, there = create_topics(locate_topology(topology).found, settings, partitions, replication)
    if as_json:
        print_json(
            {"created": made, "existing": list(there), "partitions": {name: has for name, (has, _) in there.items()}}
        )
        return
    for name in made:
        click.echo(f"Created {name}.")
    for name, (has, asked) in there.items():
        kept = f"{name} was there already and keeps its {has} partition{'s' * (has != 1)}"
        # More partitions would move keys to others, while their earlier records stay; that is for its owner to decide.
        click.echo(f"{kept}, not the {asked} asked for." if told and has != asked else f"{kept}.")
