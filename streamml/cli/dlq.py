"""``streamml dlq``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from streamml.cli.options import json_option, print_json, settings_of, settings_options, shown_time

_PREVIEW = 400


@click.group("dlq")
def command() -> None:
    """List and show dead letters: records that could not be scored, with the reason."""


@command.command("list")
@click.argument("topology")
@settings_options
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Show the latest so many.")
@json_option
def list_letters(topology: str, limit: int, as_json: bool, config: Path | None, **flags: Any) -> None:
    """List TOPOLOGY's dead letters, the latest last, without what is in the records."""
    from streamml.compose.locate import locate_topology
    from streamml.ops.dead_letters import by_reason, read_dead_letters

    letters = list(read_dead_letters(locate_topology(topology).found, settings_of(config, **flags)))
    if as_json:
        reasons = [{"step": step, "error": error, "count": count} for step, error, count in by_reason(letters)]
        shown = [_without_content(letter) for letter in letters[-limit:]]
        print_json({"count": len(letters), "reasons": reasons, "dead_letters": shown})
        return
    from streamml.cli.tables import print_table

    if not letters:
        click.echo("There are no dead letters.")
        return
    rows = [
        (one.id, one.partition, one.offset, shown_time(one.time_ms / 1000), one.step, one.error, one.message)
        for one in letters[-limit:]
    ]
    columns = ("id", "partition", "offset", "time", "step", "error", "reason")
    print_table(f"{min(limit, len(letters))} of {len(letters)} dead letters", columns, rows)
    print_table("By reason", ("step", "error", "count"), by_reason(letters))


@command.command("show")
@click.argument("topology")
@click.argument("id")
@settings_options
@json_option
def show(topology: str, id: str, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Show one dead letter of TOPOLOGY with its record. ID is an id of `dlq list`, or partition/offset of the record."""
    from streamml.compose.locate import locate_topology
    from streamml.ops.dead_letters import find_dead_letter

    letter = find_dead_letter(locate_topology(topology).found, settings_of(config, **flags), id)
    document = {
        **_without_content(letter),
        "key": _text(letter.key),
        "value": _text(letter.value),
        "value_bytes": None if letter.value is None else len(letter.value),
        "headers": [[name, _text(value)] for name, value in letter.headers],
    }
    if as_json:
        print_json(document)
        return
    from streamml.cli.tables import printable

    for name, value in document.items():
        told = printable(str(value))
        if len(told) > _PREVIEW:
            told = f"{told[:_PREVIEW]}…" + (f" ({document['value_bytes']} bytes)" if name == "value" else "")
        click.echo(f"{name:>12}  {told}")


def _without_content(letter: Any) -> Mapping[str, Any]:
    names = ("id", "topic", "partition", "offset", "step", "error", "message", "model", "attempts", "worker")
    times = {"time": _time(letter.time_ms), "record_time": _time(letter.timestamp)}
    return {**{name: getattr(letter, name) for name in names}, **times}


def _time(ms: int) -> str:
    return shown_time(ms / 1000, "milliseconds")


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="backslashreplace")
