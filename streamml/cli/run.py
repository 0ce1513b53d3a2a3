"""``streamml run``."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from streamml.cli.options import as_arguments, effective_settings, json_option, print_json, settings_options
from streamml.cli.signals import GRACE_S, on_signals
from streamml.errors import SettingsError

if TYPE_CHECKING:
    from streamml.settings.sources import Effective

_PAUSED: Final = 3
_INTERRUPTED: Final = 130
_LAST_PORT: Final = 65_535


@click.command("run")
@click.argument("topology")
@settings_options
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes in the group.")
@click.option("--until-caught-up", is_flag=True, help="End when what is in the topics now has been settled.")
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(1, 86_400),
    default=60,
    show_default=True,
    help="With --until-caught-up: give up, with exit code 3, after so many seconds without an answer of broker or store.",
)
@click.option(
    "--metrics-port", type=int, help="Serve Prometheus metrics here; with several workers, from here upwards."
)
@click.option("--worker-id", help="Stable identity; default: the first that is free on this machine.")
@json_option
@click.option("--summary-file", type=click.Path(path_type=Path), hidden=True)
@click.option("--number", type=int, hidden=True)
def command(
    topology: str,
    workers: int,
    until_caught_up: bool,
    wait_s: int,
    metrics_port: int | None,
    as_json: bool,
    summary_file: Path | None,
    number: int | None,
    config: Path | None,
    **flags: Any,
) -> int:
    """Run TOPOLOGY's workers until they are stopped (SIGTERM or Ctrl-C: finish, commit, leave).

    Exit code 0, also for a worker that was stopped; 3 where --until-caught-up meets a paused group, 130 where --until-caught-up was stopped before it had caught up.
    """
    from streamml.compose.locate import locate_topology

    effective = effective_settings(config, metrics__port=metrics_port, **flags)
    settings = effective.settings
    located = locate_topology(topology)
    if workers > 1:
        arguments = ["run", topology, *(["--until-caught-up", "--wait", str(wait_s)] if until_caught_up else [])]
        ports = _ports(effective, workers)
        arguments += as_arguments(config, flags)
        return _several(topology, arguments, ports, wait_s if until_caught_up else None, as_json)

    from streamml.ops.run import RunOptions, StopSignal, run

    # A service waits for its broker as long as it takes; a job of a timer must come to an end.
    options = RunOptions(until_caught_up, float(wait_s) if until_caught_up else None)
    stop = StopSignal()
    on_signals(stop.set, settings.worker.drain_ms / 1000 + GRACE_S)
    observers: list[Any] = []
    who = "" if number is None else f"Worker {number}: "

    def started(composed: Any, observer: Any) -> None:
        observers.append(observer)
        if settings.metrics.port is not None:
            from streamml.adapters.prometheus.exporter import serve

            probes = {"/ready": composed.worker.ready, "/live": composed.worker.live}
            port, _ = serve(composed.engine, observer, settings.metrics.host, settings.metrics.port, probes)
            click.echo(f"{who}Metrics: http://{settings.metrics.host}:{port}/metrics, /ready, /live", err=True)
        # Several workers are told how they end once, by the supervisor.
        ending = "." if number is not None else "; Ctrl-C finishes what is on its way and leaves."
        click.echo(f"{who}Running {located.found.name}{ending}", err=True)

    # What a user's own functions print must not come between the lines of the summary.
    with contextlib.redirect_stdout(sys.stderr):
        summary = run(located, settings, options, stop, started=started)
    if summary_file is None:
        return _end(summary, as_json)
    # For the supervisor, which adds up what its workers did.
    counts = [observer.latency.counts.tolist() for observer in observers]
    summary_file.write_text(json.dumps({**summary, **({"latency_counts": counts[0]} if counts else {})}))
    return 0


def _ports(effective: Effective, workers: int) -> list[int | None]:
    """The metrics port of each worker: from the one that is set upwards; 0 is any that is free, for each.

    Raises:
        SettingsError: what is set, wherever, is for one worker only, or leaves no ports.
    """
    settings, origins = effective.settings, effective.origins
    if settings.worker_id is not None:
        named = "--worker-id" if origins["worker_id"] == "flag" else f"worker_id in {origins['worker_id']}"
        raise SettingsError(f"{named} names one worker; leave it out with --workers, or run them one by one.")
    port = settings.metrics.port
    if not port:
        return [port] * workers
    if port + workers - 1 > _LAST_PORT:
        raise SettingsError(
            f"{workers} workers serve metrics from port {port} to {port + workers - 1}, and the last port is {_LAST_PORT}; "
            "take a lower metrics.port."
        )
    return [port + number for number in range(workers)]


def _several(topology: str, arguments: list[str], ports: list[int | None], wait_s: int | None, as_json: bool) -> int:
    """``wait_s``: of workers that end when they have caught up."""
    from streamml.ops.summaries import merged
    from streamml.ops.supervise import Restarts, supervise

    def arguments_of(number: int) -> list[str]:
        port = ports[number]
        own = ["--number", str(number), *([] if port is None else ["--metrics-port", str(port)])]
        return [*arguments, *own]

    stop = threading.Event()
    on_signals(stop.set)
    click.echo(f"Running {len(ports)} workers of {topology}; Ctrl-C ends them in good order.", err=True)
    # Who waits in vain that long ends like one that crashed, and must not be started again for ever.
    restarts = None if wait_s is None else Restarts(window_s=10.0 * wait_s)
    summary = merged(supervise(arguments_of, len(ports), stop, restarts=restarts))
    # A worker that was stopped before it could tell has not caught up.
    return _end({**summary, "caught_up": None if wait_s is None else bool(summary["caught_up"])}, as_json)


def _end(summary: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print_json(summary)
    else:
        from streamml.cli.tables import print_summary

        print_summary(summary)
    if summary["caught_up"] is False and summary["paused"]:
        click.echo(
            f"Error: Group is paused by {summary['paused']['by']}: {summary['paused']['reason']}. It has not caught up; "
            "`streamml resume` lets it go on, then run again.",
            err=True,
        )
        return _PAUSED
    if summary["caught_up"] is False:
        click.echo(
            "Stopped before it had caught up; what it did is committed, and the next run goes on from there.", err=True
        )
        return _INTERRUPTED
    return 0
