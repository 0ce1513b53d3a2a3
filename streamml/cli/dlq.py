"""``streamml dlq``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamml.cli.options import FiniteRange, json_option, print_json, settings_of, settings_options, shown_time

if TYPE_CHECKING:
    from streamml.topology.topology import Topology

_PREVIEW = 400

_topic_option = click.option(
    "--topic", help="Read this topic instead, into which another program writes dead letters of the same format."
)


@click.group("dlq")
def command() -> None:
    """List, show, redrive, export and purge dead letters: records that could not be scored, with the reason."""


@command.command("list")
@click.argument("topology")
@_topic_option
@settings_options
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Show the latest so many.")
@json_option
def list_letters(
    topology: str, topic: str | None, limit: int, as_json: bool, config: Path | None, **flags: Any
) -> None:
    """List TOPOLOGY's dead letters, the latest last, without what is in the records."""
    from streamml.ops.dead_letters import by_reason, read_dead_letters

    letters = list(read_dead_letters(_declared(topology, topic), settings_of(config, **flags)))
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
@_topic_option
@settings_options
@json_option
def show(topology: str, id: str, topic: str | None, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Show one dead letter of TOPOLOGY with its record. ID is an id of `dlq list`, or partition/offset of the record."""
    from streamml.ops.dead_letters import find_dead_letter, redacted

    declared = _declared(topology, topic)
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
@_topic_option
@settings_options
def export(topology: str, file: Path, topic: str | None, config: Path | None, **flags: Any) -> None:
    """Write all dead letters of TOPOLOGY to FILE, one JSON object a line, without the values of secret fields."""
    import json

    from streamml.ops.dead_letters import read_dead_letters, redacted

    declared = _declared(topology, topic)
    count = 0
    with file.open("x", encoding="utf-8") as lines:
        for letter in read_dead_letters(declared, settings_of(config, **flags)):
            lines.write(json.dumps(_whole(redacted(letter, declared), letter)) + "\n")
            count += 1
    click.echo(f"{count} dead letters are in {file}.", err=True)


@command.command("redrive")
@click.argument("topology")
@settings_options
@click.option("--reason", help="Only those whose error has this name, as `dlq list` groups them.")
@click.option("--step", help="Only those of this step.")
@click.option("--since", help="Only those written at this time or later, as 2026-01-31T10:00:00Z.")
@click.option("--until", "until_", help="Only those written before this time.")
@click.option("--id", "ids", multiple=True, help="Only this id; may be repeated.")
@click.option("--rate", type=FiniteRange(0, min_open=True), help="Records a second; default: as many as can be.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def redrive(
    topology: str,
    reason: str | None,
    step: str | None,
    since: str | None,
    until_: str | None,
    ids: tuple[str, ...],
    rate: float | None,
    yes: bool,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> int:
    """Score TOPOLOGY's dead letters again, as the topology is now, into its prediction topic.

    One that is scored is no dead letter any more; one that fails again stays, with one attempt more. Nothing is written to the
    input topic. Exit code 130 where it was stopped before its end; what is left stays a dead letter.
    """
    import contextlib
    import sys

    from streamml.cli.signals import on_signals
    from streamml.compose.locate import locate_topology
    from streamml.compose.parts import gather
    from streamml.ops import redrive as ops
    from streamml.ops.replay.span import time_ms
    from streamml.ops.run import StopSignal

    if not yes and (as_json or not sys.stdin.isatty()):
        raise click.UsageError("Nobody can be asked here; add --yes.")
    located, settings = locate_topology(topology), settings_of(config, **flags)
    since_ms, until_ms = (None if text is None else time_ms(text) for text in (since, until_))
    chosen = ops.Chosen(reason, step, since_ms, until_ms, frozenset(ids))
    places = ops.find_places(located.found, settings, chosen)
    if places and not yes:
        click.confirm(f"Redrive {len(places)} dead letters into {located.found.destination}?", abort=True, err=True)
    stop, done = StopSignal(), ops.Redriven()
    on_signals(stop.set)
    if places:
        # What a user's own functions print must not come between the lines of the summary.
        with contextlib.redirect_stdout(sys.stderr), gather(located.found, located.repository, settings) as parts:
            done = ops.redrive(located.found, parts, settings, places, stop, rate=rate, told=_tell_redriven)
    left = len(places) - done.gone - done.failed
    if as_json:
        print_json({"chosen": len(places), "gone": done.gone, "failed": done.failed, "left": left})
    else:
        click.echo(f"{done.gone} of {len(places)} dead letters are scored and gone, {done.failed} failed again.")
    return 130 if left and stop.asked.is_set() else 0


def _tell_redriven(done: Any) -> None:
    click.echo(f"{done.gone:,} scored, {done.failed:,} failed again", err=True)


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


def _declared(topology: str, topic: str | None) -> Topology:
    """The topology; with a ``topic`` as if its dead letters were there."""
    from streamml.compose.locate import locate_topology
    from streamml.errors import ConfigError
    from streamml.topology.sentences import topic_problem

    found = locate_topology(topology).found
    if topic is None:
        return found
    if wrong := topic_problem("--topic:", topic):
        raise ConfigError(wrong)
    return replace(found, dead_letters=replace(found.dead_letters, topic=topic))


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
