"""``streamml offsets``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamml.cli.options import json_option, print_json, settings_of, settings_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamml.ops.offsets import Move, Position


@click.group("offsets")
def command() -> None:
    """Show and reset the positions of a topology's group."""


@command.command("show")
@click.argument("topology")
@settings_options
@json_option
def show(topology: str, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Show where TOPOLOGY's group is in each partition, and whether a worker can go on from there."""
    from streamml.compose.locate import locate_topology
    from streamml.ops import offsets as ops

    found = ops.positions(locate_topology(topology).found, settings_of(config, **flags))
    lag = sum(one.lag or 0 for one in found.partitions)
    if as_json:
        rows = [_shown(one) for one in found.partitions]
        print_json({"group": found.group, "members": found.members, "lag": lag, "partitions": rows})
        return
    from streamml.cli.tables import print_table

    columns = ("topic", "partition", "committed", "earliest", "latest", "lag", "state")
    print_table(
        f"Group {found.group}; members: {len(found.members)}, records to be scored: {lag:,}",
        columns,
        [tuple(_shown(one).values()) for one in found.partitions],
    )
    if any(one.state not in ops.FINE for one in found.partitions):
        click.echo("A worker stops at positions that are not ok; `streamml offsets reset` sets them.", err=True)


@command.command("reset")
@click.argument("topology")
@click.option("--to", required=True, help="earliest, latest, an offset, or a time (ISO 8601, UTC unless it says).")
@click.option("--partition", "partitions", multiple=True, help="NUMBER or TOPIC/NUMBER; may be repeated. Default: all.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
@settings_options
@json_option
def reset(
    topology: str,
    to: str,
    partitions: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Set the positions of TOPOLOGY's group, after showing what that skips or scores again. Its workers have to be stopped."""
    from streamml.compose.locate import locate_topology
    from streamml.ops import offsets as ops

    if as_json and not (yes or dry_run):
        raise click.UsageError("With --json nobody is asked; add --yes, or --dry-run to see the plan.")
    settings = settings_of(config, **flags)
    found = ops.positions(locate_topology(topology).found, settings)
    moves = ops.plan_reset(found, settings, to, partitions)
    if not as_json:
        _show_plan(found.group, moves)
    if not dry_run:
        if not yes:
            click.confirm(f"Reset {len(moves)} partitions of group {found.group}?", abort=True, err=True)
        ops.reset(found, settings, moves)
    if as_json:
        rows = [{**_shown(move.position), "to": move.to, "effect": move.effect} for move in moves]
        print_json({"group": found.group, "reset": not dry_run, "partitions": rows})
    elif not dry_run:
        click.echo(f"{len(moves)} partitions of group {found.group} are reset.")


def _show_plan(group: str, moves: Sequence[Move]) -> None:
    from streamml.cli.tables import print_table

    rows = [
        (
            *move.position.where,
            "–" if move.position.committed is None else move.position.committed,
            move.to,
            move.effect,
        )
        for move in moves
    ]
    print_table(f"Reset of group {group}", ("topic", "partition", "from", "to", "effect"), rows)


def _shown(one: Position) -> dict[str, Any]:
    return {
        "topic": one.where.topic,
        "partition": one.where.partition,
        "committed": one.committed,
        "earliest": one.earliest,
        "latest": one.latest,
        "lag": one.lag,
        "state": one.state,
    }
