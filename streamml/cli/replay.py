"""``streamml replay``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamml.cli.options import json_option, print_json, settings_of, settings_options, shown_time
from streamml.cli.replay_diff import diff
from streamml.cli.replay_publish import publish
from streamml.cli.replay_start import resume, start, work

if TYPE_CHECKING:
    from streamml.ops.replay.standing import Standing


@click.group("replay")
def command() -> None:
    """Score a stretch of a topic again, beside live traffic: into a topic of its own, compared before it is published."""


@command.command("list")
@click.argument("topology")
@settings_options
@json_option
def list_replays(topology: str, as_json: bool, config: Path | None, **flags: Any) -> None:
    """List the replays of TOPOLOGY, those on other machines too."""
    from streamml.compose.locate import locate_topology
    from streamml.ops.replay.standing import standings

    found = standings(locate_topology(topology).found, settings_of(config, **flags))
    if as_json:
        print_json([_document(one) for one in found])
        return
    from streamml.cli.tables import print_table

    rows = [
        (
            one.replay.number,
            one.state,
            f"{one.done:,} of {one.total:,}",
            shown_time(one.replay.started_ms / 1000),
            one.replay.by,
            " ".join(f"{name}@{version}" for name, version in one.replay.models.items()),
            one.replay.into,
        )
        for one in found
    ]
    print_table(f"{len(rows)} replays", ("number", "state", "offsets", "started", "by", "models", "into"), rows)


@command.command("show")
@click.argument("topology")
@click.argument("number", type=click.IntRange(1))
@settings_options
@json_option
def show(topology: str, number: int, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Show replay NUMBER of TOPOLOGY."""
    from streamml.compose.locate import locate_topology
    from streamml.ops.replay.standing import standing

    found = standing(locate_topology(topology).found, settings_of(config, **flags), number)
    document = _document(found)
    if as_json:
        print_json(document)
        return
    from streamml.cli.tables import print_table

    spans = document.pop("spans")
    print_table(f"Replay {number}", ("what", "value"), [(name, _shown(value)) for name, value in document.items()])
    print_table("Range", ("topic", "partition", "from", "up to"), [tuple(one.values()) for one in spans])


@command.command("cancel")
@click.argument("topology")
@click.argument("number", type=click.IntRange(1))
@settings_options
@json_option
def cancel(topology: str, number: int, as_json: bool, config: Path | None, **flags: Any) -> None:
    """End replay NUMBER of TOPOLOGY where it is, for good; its topic stays as it is."""
    from streamml.compose.locate import locate_topology
    from streamml.ops.replay.run import cancel as cancelled

    replay = cancelled(locate_topology(topology).found, settings_of(config, **flags), number)
    if as_json:
        print_json({"number": replay.number, "state": replay.state})
    else:
        click.echo(f"Replay {number} is cancelled; what it wrote stays in {replay.into}.")


def _document(one: Standing) -> dict[str, Any]:
    from dataclasses import asdict

    recorded = asdict(one.replay)
    return {**recorded, "state": one.state, "running_at": list(one.by), "done": one.done, "total": one.total}


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={each}" for name, each in value.items())
    return "–" if value is None else str(value)


for one in (start, resume, work, diff, publish):
    command.add_command(one)
