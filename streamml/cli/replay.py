"""``streamml replay``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamml.cli.options import (
    FiniteRange,
    added,
    as_arguments,
    json_option,
    print_json,
    settings_of,
    settings_options,
    shown_time,
)
from streamml.cli.ranges import asked_range, range_options
from streamml.cli.replay_diff import diff, exit_code, judged, judging, judging_options, show_judged
from streamml.cli.replay_plan import show_plan
from streamml.cli.replay_publish import publish
from streamml.cli.replay_running import carry_out_replay, tell_ended
from streamml.cli.signals import GRACE_S, on_signals

if TYPE_CHECKING:
    from streamml.ops.replay.run import Manner
    from streamml.ops.replay.standing import Standing

_manner_options = added(
    click.option("--rate", type=FiniteRange(0, min_open=True), help="Records a second; default: as many as can be."),
    click.option(
        "--max-lag",
        type=click.IntRange(0),
        default=100_000,
        show_default=True,
        help="Wait while the live group is further behind, in records; 0: never wait.",
    ),
    click.option(
        "--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes that share it."
    ),
    click.option(
        "--wait",
        "wait_s",
        type=click.IntRange(1, 86_400),
        default=60,
        show_default=True,
        help="Stop, to be resumed, after so many seconds without an answer of broker or store.",
    ),
)


def _manner(options: dict[str, Any]) -> Manner:
    """How a replay runs; takes the values of these options out of ``options``."""
    from streamml.ops.replay.run import Manner

    rate, max_lag, workers, wait_s = map(options.pop, ("rate", "max_lag", "workers", "wait_s"))
    return Manner(rate, max_lag or None, workers, float(wait_s))


@click.group("replay")
def command() -> None:
    """Score a stretch of a topic again, beside live traffic: into a topic of its own, compared before it is published."""


@command.command("start")
@click.argument("topology")
@range_options("replayed")
@click.option("--where", help="""Only events of which this is true, as 'carrier == "UA" and delay > 15'.""")
@click.option("--model", "models", multiple=True, help="VERSION of the last model, or NAME=VERSION; may be repeated.")
@click.option(
    "--features",
    help="live: as the store has them now; recorded: as they were; SET=VERSION and SET=recorded, several separated by commas. "
    "Default: live, and streaming sets recorded where the topology has a feature log.",
)
@click.option("--into", help="Topic of its predictions, an empty one; default: PREDICTIONS.replay.NUMBER.")
@click.option(
    "--max-dead-letters", type=FiniteRange(0, 1), help="Share past which it stops; default: as the topology says."
)
@_manner_options
@judging_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@settings_options
@json_option
def start(
    topology: str,
    where: str | None,
    models: tuple[str, ...],
    features: str | None,
    into: str | None,
    max_dead_letters: float | None,
    yes: bool,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> int:
    """Score a range of TOPOLOGY's input again, up to and without --to, into a topic of its own.

    Shows the plan first, and asks. With --fail-if, --page or --threshold what it scored is compared with the live predictions
    then, as `replay diff` does.

    Exit codes: 0 done, 1 a condition of --fail-if holds, 130 stopped before its end: `resume` goes on.
    """
    from streamml.compose.locate import locate_topology
    from streamml.ops.replay.compare import CompareOptions, check_live, check_options
    from streamml.ops.replay.plan import Wanted, planned
    from streamml.ops.replay.run import begin

    _check_asking(yes, as_json)
    asked, stretch, manner = judging(flags), asked_range(flags), _manner(flags)
    settings, located = settings_of(config, **flags), locate_topology(topology)
    wanted = Wanted(stretch, models, features, where, into, max_dead_letters, manner.rate)
    again = [topology, *as_arguments(config, flags)]
    if asked.asked:
        check_live(located.found)
    with planned(located, settings, wanted) as (plan, parts):
        check_options(located.found, plan.draft, CompareOptions(thresholds=asked.thresholds))
        show_plan(plan, manner)
        if not yes:
            click.confirm("Replay this?", abort=True, err=True)
        replay = begin(located.found, settings, plan.draft)
        click.echo(f"Replay {replay.number} writes into {replay.into}.", err=True)
        ended, summary = carry_out_replay(located.found, settings, replay, manner, parts, again, resumed=False)
    if ended.state != "done" or not asked.asked:
        return tell_ended(ended, summary, again, as_json, compared=located.found.sink.topic is not None)
    told = judged(located.found, settings, ended, CompareOptions(), asked)
    tell_ended(ended, {**summary, "comparison": told.document()} if as_json else summary, again, as_json, compared=True)
    if not as_json:
        show_judged(told)
    return exit_code(told)


@command.command("resume")
@click.argument("topology")
@click.argument("number", type=click.IntRange(1))
@_manner_options
@settings_options
@json_option
def resume(
    topology: str,
    number: int,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> int:
    """Go on with replay NUMBER of TOPOLOGY from what it has committed, with the versions that it began with."""
    from streamml.compose.locate import locate_topology
    from streamml.ops.replay.plan import gathered
    from streamml.ops.replay.run import resumable

    manner = _manner(flags)
    settings, located = settings_of(config, **flags), locate_topology(topology)
    replay = resumable(located.found, settings, number)
    again = [topology, *as_arguments(config, flags)]
    with gathered(located.found, located.repository, settings, replay.models, replay.features) as parts:
        ended, summary = carry_out_replay(located.found, settings, replay, manner, parts, again, resumed=True)
    return tell_ended(ended, summary, again, as_json, compared=located.found.sink.topic is not None)


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


@command.command("work", hidden=True)
@click.argument("topology")
@click.argument("number", type=click.IntRange(1))
@click.option("--share", type=int, required=True)
@_manner_options
@click.option("--summary-file", type=click.Path(path_type=Path), required=True)
@settings_options
def work(
    topology: str,
    number: int,
    share: int,
    summary_file: Path,
    config: Path | None,
    **flags: Any,
) -> int:
    """One of the processes of `start --workers`, which holds the replay and records its end."""
    import json

    from streamml.compose.locate import locate_topology
    from streamml.ops.replay.plan import gathered
    from streamml.ops.replay.run import resumable, score
    from streamml.ops.run import StopSignal

    manner = _manner(flags)
    settings, located = settings_of(config, **flags), locate_topology(topology)
    replay = resumable(located.found, settings, number)
    stop = StopSignal()
    on_signals(stop.set, settings.worker.drain_ms / 1000 + GRACE_S)
    with gathered(located.found, located.repository, settings, replay.models, replay.features) as parts:
        summary = score(located.found, parts, settings, replay, manner, stop, share=share)
    summary_file.write_text(json.dumps(summary))
    return 0


def _check_asking(yes: bool, as_json: bool) -> None:
    if not yes and (as_json or not sys.stdin.isatty()):
        raise click.UsageError("Nobody can be asked here; add --yes to have the plan carried out.")


def _document(one: Standing) -> dict[str, Any]:
    from dataclasses import asdict

    recorded = asdict(one.replay)
    return {**recorded, "state": one.state, "running_at": list(one.by), "done": one.done, "total": one.total}


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={each}" for name, each in value.items())
    return "–" if value is None else str(value)


command.add_command(diff)
command.add_command(publish)
