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
    """List, show, export and purge dead letters: records that could not be scored, with the reason."""


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
        reasons = [
            {
                "step": one.step,
                "error": one.error,
                "count": one.count,
                "first": _time(one.first_ms),
                "last": _time(one.last_ms),
            }
            for one in by_reason(letters)
        ]
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
    groups = [
        (one.count, shown_time(one.first_ms / 1000), shown_time(one.last_ms / 1000), one.step, one.error)
        for one in by_reason(letters)
    ]
    print_table("By reason", ("count", "first", "last", "step", "error"), groups)


@command.command("show")
@click.argument("topology")
@click.argument("id")
@settings_options
@json_option
def show(topology: str, id: str, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Show one dead letter of TOPOLOGY with its record. ID is an id of `dlq list`, or partition/offset of the record."""
    from streamml.compose.locate import locate_topology
    from streamml.ops.dead_letters import find_dead_letter, redacted

    declared = locate_topology(topology).found
    letter = find_dead_letter(declared, settings_of(config, **flags), id)
    document = _whole(redacted(letter, declared), letter)
    if as_json:
        print_json(document)
        return
    from streamml.cli.tables import printable

    for name, value in document.items():
        told = printable(str(value))
        if len(told) > _PREVIEW:
            told = f"{told[:_PREVIEW]}…" + (f" ({document['value_bytes']} bytes)" if name == "value" else "")
        click.echo(f"{name:>12}  {told}")


@command.command("export")
@click.argument("topology")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@settings_options
def export(topology: str, file: Path, config: Path | None, **flags: Any) -> None:
    """Write all dead letters of TOPOLOGY to FILE, one JSON object a line, without the values of secret fields."""
    import json

    from streamml.compose.locate import locate_topology
    from streamml.ops.dead_letters import read_dead_letters, redacted

    declared = locate_topology(topology).found
    count = 0
    with file.open("x", encoding="utf-8") as lines:
        for letter in read_dead_letters(declared, settings_of(config, **flags)):
            lines.write(json.dumps(_whole(redacted(letter, declared), letter)) + "\n")
            count += 1
    click.echo(f"{count} dead letters are in {file}.", err=True)


@command.command("purge")
@click.argument("topology")
@click.argument("ids", nargs=-1)
@settings_options
@click.option("--error", help="All whose error has this name, as `dlq list` groups them.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def purge(
    topology: str,
    ids: tuple[str, ...],
    error: str | None,
    everything: bool,
    yes: bool,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Take dead letters out of TOPOLOGY's dead-letter topic for good: those of IDS, of an --error, or --all."""
    from streamml.compose.locate import locate_topology
    from streamml.ops import dead_letters as ops

    if sum((bool(ids), error is not None, everything)) != 1:
        raise click.UsageError("Name ids, or an --error, or --all.")
    declared, settings = locate_topology(topology).found, settings_of(config, **flags)
    if ids:
        chosen = [ops.find_dead_letter(declared, settings, id) for id in ids]
    else:
        chosen = [one for one in ops.read_dead_letters(declared, settings) if everything or one.error == error]
    if chosen and not yes:
        click.confirm(f"Purge {len(chosen)} dead letters of {declared.dead_letters.topic}?", abort=True, err=True)
    count = ops.purge(declared, settings, chosen)
    if as_json:
        print_json({"purged": count})
    else:
        click.echo(f"{count} dead letters are purged.")


def _whole(shown: Any, letter: Any) -> dict[str, Any]:
    """``shown`` is the letter as it may be shown."""
    return {
        **_without_content(shown),
        "key": _text(shown.key),
        "value": _text(shown.value),
        "value_bytes": None if letter.value is None else len(letter.value),
        "headers": [[name, _text(value)] for name, value in shown.headers],
    }


def _without_content(letter: Any) -> Mapping[str, Any]:
    names = ("id", "topic", "partition", "offset", "step", "error", "message", "model", "attempts", "worker")
    times = {"time": _time(letter.time_ms), "record_time": _time(letter.timestamp)}
    return {**{name: getattr(letter, name) for name in names}, **times}


def _time(ms: int) -> str:
    return shown_time(ms / 1000, "milliseconds")


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="backslashreplace")
