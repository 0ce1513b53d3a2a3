"""A replay that is carried out, in this process or in several, and what is told of it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from streamml.cli.options import print_json
from streamml.cli.signals import GRACE_S, on_signals

if TYPE_CHECKING:
    from streamml.ops.replay.replay import Replay

_INTERRUPTED: Final = 130


def carry_out_replay(
    topology: Any,
    settings: Any,
    replay: Replay,
    manner: Any,
    parts: Any,
    again: Sequence[str],
    *,
    resumed: bool,
) -> tuple[Replay, Mapping[str, Any]]:
    """Score; how it ended, and the summary.

    Args:
        again: topology and options, as other processes get them.
        resumed: see `streamml.ops.replay.run.carry_out`.
    """
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


def tell_ended(
    ended: Replay, summary: Mapping[str, Any], again: Sequence[str], as_json: bool, *, compared: bool
) -> int:
    """Tell how a replay ended; the exit code. How old its records are is no latency, so none is told."""
    summary = {name: value for name, value in summary.items() if name != "latency_ms"}
    if as_json:
        print_json(
            {**summary, "number": ended.number, "state": ended.state, "into": ended.into, "counts": ended.counts}
        )
    else:
        from streamml.cli.tables import print_summary

        print_summary(summary)
    if ended.state == "done":
        command = f"streamml replay {'diff' if compared else 'publish'} {again[0]} {ended.number}"
        click.echo(
            f"Replay {ended.number} is done; its predictions are in {ended.into}. "
            f"{'What they change' if compared else 'Into Redis with them'}: `{command}`.",
            err=True,
        )
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
