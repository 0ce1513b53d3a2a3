"""``streamml replay start`` and ``resume``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from streamml.cli.options import as_arguments, json_option, print_json, settings_of, settings_options
from streamml.cli.replay_diff import exit_code, judged, judging, judging_options, show
from streamml.cli.signals import GRACE_S, on_signals

if TYPE_CHECKING:
    from streamml.ops.replay.plan import Plan
    from streamml.ops.replay.replay import Replay

F = TypeVar("F", bound=Callable[..., Any])
_INTERRUPTED: Final = 130
_MANNER: Final = (
    click.option(
        "--rate", type=click.FloatRange(0, min_open=True), help="Records a second; default: as many as can be."
    ),
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


def _manner_options(command: F) -> F:
    for option in reversed(_MANNER):
        command = option(command)
    return command


@click.command("start")
@click.argument("topology")
@click.option("--from", "start", required=True, help="An offset, or a time with its zone, as 2026-01-31T10:00:00Z.")
@click.option("--to", "end", required=True, help="The same; what is there is not replayed any more.")
@click.option("--by", type=click.Choice(["record", "event"]), default="record", show_default=True, help="Whose times.")
@click.option("--slack", help="With --by event: how far times of events and records may be apart, as 10m.")
@click.option("--partitions", help="NUMBER or TOPIC/NUMBER, separated by commas; default: all.")
@click.option("--what-is-left", is_flag=True, help="Go on where retention has removed a part of the range.")
@click.option("--where", help="""Only events of which this is true, as 'carrier == "UA" and delay > 15'.""")
@click.option("--model", "models", multiple=True, help="VERSION of the last model, or NAME=VERSION; may be repeated.")
@click.option(
    "--features",
    default="live",
    show_default=True,
    help="live: as the store has them now; recorded: as they were; SET=VERSION, several separated by commas.",
)
@click.option("--into", help="Topic of its predictions, an empty one; default: PREDICTIONS.replay.NUMBER.")
@click.option(
    "--max-dead-letters", type=click.FloatRange(0, 1), help="Share past which it stops; default: as the topology says."
)
@_manner_options
@judging_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@settings_options
@json_option
def start(
    topology: str,
    start: str,
    end: str,
    by: Any,
    slack: str | None,
    partitions: str | None,
    what_is_left: bool,
    where: str | None,
    models: tuple[str, ...],
    features: str,
    into: str | None,
    max_dead_letters: float | None,
    rate: float | None,
    max_lag: int,
    workers: int,
    wait_s: int,
    thresholds: tuple[str, ...],
    conditions: tuple[str, ...],
    page: Path | None,
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
    from streamml.ops.replay.compare import CompareOptions, check_options
    from streamml.ops.replay.plan import Wanted, planned
    from streamml.ops.replay.run import Manner, begin
    from streamml.ops.replay.span import Asked

    _check_asking(yes, as_json)
    asked = judging(thresholds, conditions, page)
    settings, located = settings_of(config, **flags), locate_topology(topology)
    chosen = tuple(one.strip() for one in (partitions or "").split(",") if one.strip())
    stretch = Asked(start, end, by, slack, chosen, what_is_left)
    wanted = Wanted(stretch, models, features, where, into, max_dead_letters, rate)
    manner = Manner(rate, max_lag or None, workers, float(wait_s))
    again = [topology, *as_arguments(config, flags)]
    with planned(located, settings, wanted) as (plan, parts):
        check_options(located.found, plan.draft, CompareOptions(thresholds=asked.thresholds))
        _show_plan(plan, manner)
        if not yes:
            click.confirm("Replay this?", abort=True, err=True)
        replay = begin(located.found, settings, plan.draft)
        click.echo(f"Replay {replay.number} writes into {replay.into}.", err=True)
        ended, summary = _carried_out(located.found, settings, replay, manner, parts, again, resumed=False)
    if ended.state != "done" or not asked.asked:
        return _tell(ended, summary, again, as_json)
    told = judged(located.found, settings, ended, CompareOptions(), asked)
    _tell(ended, {**summary, "comparison": told.document()} if as_json else summary, again, as_json)
    if not as_json:
        show(told)
    return exit_code(told)


@click.command("resume")
@click.argument("topology")
@click.argument("number", type=click.IntRange(1))
@_manner_options
@settings_options
@json_option
def resume(
    topology: str,
    number: int,
    rate: float | None,
    max_lag: int,
    workers: int,
    wait_s: int,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> int:
    """Go on with replay NUMBER of TOPOLOGY from what it has committed, with the versions that it began with."""
    from streamml.compose.locate import locate_topology
    from streamml.ops.replay.plan import gathered
    from streamml.ops.replay.run import Manner, resumable

    settings, located = settings_of(config, **flags), locate_topology(topology)
    replay = resumable(located.found, settings, number)
    manner = Manner(rate, max_lag or None, workers, float(wait_s))
    again = [topology, *as_arguments(config, flags)]
    with gathered(located.found, located.repository, settings, replay.models, replay.features) as parts:
        ended, summary = _carried_out(located.found, settings, replay, manner, parts, again, resumed=True)
    return _tell(ended, summary, again, as_json)


@click.command("work", hidden=True)
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
    rate: float | None,
    max_lag: int,
    workers: int,
    wait_s: int,
    summary_file: Path,
    config: Path | None,
    **flags: Any,
) -> int:
    """One of the processes of `start --workers`, which holds the replay and records its end."""
    import json

    from streamml.compose.locate import locate_topology
    from streamml.ops.replay.plan import gathered
    from streamml.ops.replay.run import Manner, resumable, score
    from streamml.ops.run import StopSignal

    settings, located = settings_of(config, **flags), locate_topology(topology)
    replay = resumable(located.found, settings, number)
    stop = StopSignal()
    on_signals(stop.set, settings.worker.drain_ms / 1000 + GRACE_S)
    manner = Manner(rate, max_lag or None, workers, float(wait_s))
    with gathered(located.found, located.repository, settings, replay.models, replay.features) as parts:
        summary = score(located.found, parts, settings, replay, manner, stop, share=share)
    summary_file.write_text(json.dumps(summary))
    return 0


def _carried_out(
    topology: Any,
    settings: Any,
    replay: Replay,
    manner: Any,
    parts: Any,
    again: Sequence[str],
    *,
    resumed: bool,
) -> tuple[Replay, Mapping[str, Any]]:
    import contextlib
    from dataclasses import replace

    from streamml.cli.replay_progress import progress
    from streamml.ops.replay.run import carry_out, score
    from streamml.ops.run import StopSignal

    stop = StopSignal()
    on_signals(stop.set, settings.worker.drain_ms / 1000 + GRACE_S)
    workers = min(manner.workers, len(replay.spans))

    def scored() -> Mapping[str, Any]:
        if workers == 1:
            return score(topology, parts, settings, replay, replace(manner, workers=1), stop)
        return _several(again, replay, manner, workers, stop)

    # What a user's own functions print must not come between the lines of the summary.
    with contextlib.redirect_stdout(sys.stderr), progress(topology, settings, replay):
        return carry_out(topology, settings, replay, scored, stop, resumed=resumed, patience_s=manner.patience_s)


def _tell(ended: Replay, summary: Mapping[str, Any], again: Sequence[str], as_json: bool) -> int:
    """How it ended; returns the exit code."""
    if as_json:
        print_json(
            {**summary, "number": ended.number, "state": ended.state, "into": ended.into, "counts": ended.counts}
        )
    else:
        from streamml.cli.tables import print_summary

        print_summary(summary)
    if ended.state == "done":
        click.echo(f"Replay {ended.number} is done; its predictions are in {ended.into}.", err=True)
        return 0
    how = (
        "cancelled"
        if ended.state == "cancelled"
        else f"stopped; `streamml replay resume {again[0]} {ended.number}` goes on"
    )
    click.echo(f"Replay {ended.number} is {how}.", err=True)
    return _INTERRUPTED


def _several(again: Sequence[str], replay: Replay, manner: Any, workers: int, stop: Any) -> dict[str, Any]:
    from streamml.ops.summaries import merged
    from streamml.ops.supervise import Restarts, supervise

    topology, *options = again
    shared = ["replay", "work", topology, str(replay.number), *options, "--workers", str(workers)]
    shared += ["--max-lag", str(manner.max_lag or 0), "--wait", str(int(manner.patience_s))]
    shared += [] if manner.rate is None else ["--rate", str(manner.rate)]
    restarts = Restarts(window_s=10.0 * manner.patience_s)
    summaries = supervise(lambda number: [*shared, "--share", str(number)], workers, stop.asked, restarts=restarts)
    summary = merged(summaries)
    done = len(summaries) == workers and all(one["caught_up"] for one in summaries)
    return {**summary, "caught_up": done}


def _check_asking(yes: bool, as_json: bool) -> None:
    if not yes and (as_json or not sys.stdin.isatty()):
        raise click.UsageError("Nobody can be asked here; add --yes to have the plan carried out.")


def _show_plan(plan: Plan, manner: Any) -> None:
    """On stderr: stdout has the summary."""
    draft = plan.draft
    click.echo(f"Replay of {draft.topology}: {plan.events:,} offsets at most", err=True)
    for span in draft.spans:
        click.echo(
            f"  {span.topic}[{span.partition}]  {span.start} up to {span.end}: {span.end - span.start:,}", err=True
        )
    for one in plan.gone:
        lost = "some records, if any," if one.records is None else f"{one.records:,} offsets"
        click.echo(f"  {one.where} begins at {one.first}: {lost} of the range are gone", err=True)
    models = ", ".join(f"{name}@{version}" for name, version in draft.models.items())
    lines = {
        "models": models,
        "features": draft.features,
        "where": draft.where,
        "into": draft.into.replace("{number}", "NUMBER"),
        "dead letters": draft.letters.replace("{number}", "NUMBER"),
        "time": f"unknown, as {plan.told_by}" if plan.seconds is None else f"{_duration(plan.seconds)}, {plan.told_by}",
        "waits": "never"
        if manner.max_lag is None
        else f"while the live group is over {manner.max_lag:,} records behind",
    }
    for name, value in lines.items():
        if value:
            click.echo(f"  {name}: {value}", err=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"about {hours} h {minutes} min" if hours else f"about {minutes} min {rest} s" if minutes else f"about {rest} s"
    )
