"""``streamml run``."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Final

import click

from streamml.cli.options import json_option, print_json, settings_of, settings_options

_GRACE_S: Final = 10.0


@click.command("run")
@click.argument("topology")
@settings_options
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes in the group.")
@click.option("--until-caught-up", is_flag=True, help="End when what is in the topics now has been settled.")
@click.option(
    "--metrics-port", type=int, help="Serve Prometheus metrics here; with several workers, from here upwards."
)
@click.option("--worker-id", help="Stable identity; default: the first that is free on this machine.")
@json_option
@click.option("--summary-file", type=click.Path(path_type=Path), hidden=True)
def command(
    topology: str,
    workers: int,
    until_caught_up: bool,
    metrics_port: int | None,
    as_json: bool,
    summary_file: Path | None,
    config: Path | None,
    **flags: Any,
) -> int:
    """Run TOPOLOGY's workers until they are stopped (SIGTERM or Ctrl-C: finish, commit, leave)."""
    from streamml.compose.locate import locate_topology

    settings = settings_of(config, metrics__port=metrics_port, **flags)
    located = locate_topology(topology)
    if workers > 1:
        return _several(topology, workers, until_caught_up, as_json, config, {**flags, "metrics_port": metrics_port})

    from streamml.ops.run import RunOptions, StopSignal, run

    stop = StopSignal()
    _on_signals(stop.set, settings.worker.drain_ms / 1000 + _GRACE_S)
    observers: list[Any] = []

    def started(engine: Any, observer: Any) -> None:
        observers.append(observer)
        if settings.metrics.port is not None:
            from streamml.adapters.prometheus.exporter import serve

            port, _ = serve(engine, observer, settings.metrics.host, settings.metrics.port)
            click.echo(f"Metrics: http://{settings.metrics.host}:{port}/metrics", err=True)
        click.echo(f"Running {located.found.name}; Ctrl-C finishes what is on its way and leaves.", err=True)

    # What a user's own functions print must not come between the lines of the summary.
    with contextlib.redirect_stdout(sys.stderr):
        summary = run(located, settings, RunOptions(until_caught_up), stop, started=started)
    if summary_file is None:
        _show(summary, as_json)
        return 0
    # For the supervisor, which adds up what its workers did.
    counts = [observer.latency.counts.tolist() for observer in observers]
    summary_file.write_text(json.dumps({**summary, **({"latency_counts": counts[0]} if counts else {})}))
    return 0


def _on_signals(stop: Any, patience_s: float | None = None) -> None:
    """First signal: end in good order, by force after ``patience_s``. Second: at once (promise L3)."""

    def give_up() -> None:
        click.echo(
            "Error: a step does not come back, so this worker ends without its last commit; nothing is lost.", err=True
        )
        os._exit(3)

    def handle(number: int, frame: object) -> None:
        if patience_s is not None:
            # Where even the interpreter hangs, on its way out: a client's thread that does not end.
            faulthandler.dump_traceback_later(patience_s + _GRACE_S, exit=True)
            timer = threading.Timer(patience_s, give_up)
            timer.daemon = True
            timer.start()
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda number, frame: os._exit(128 + number))
        # A handler runs between any two steps of the main thread, which may hold the very lock that `stop` needs.
        threading.Thread(target=stop).start()

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, handle)


def _several(
    topology: str, workers: int, until_caught_up: bool, as_json: bool, config: Path | None, flags: dict[str, Any]
) -> int:
    from streamml.ops.summaries import merged
    from streamml.ops.supervise import supervise

    if flags.get("worker_id"):
        raise click.UsageError("--worker-id names one worker; leave it out with --workers, or run them one by one.")
    arguments = ["run", topology]
    arguments += ["--until-caught-up"] if until_caught_up else []
    arguments += ["--config", str(config)] if config else []
    for name in ("brokers", "group", "redis_url"):
        arguments += [f"--{name.replace('_', '-')}", flags[name]] if flags.get(name) else []
    stop = threading.Event()
    _on_signals(stop.set)
    click.echo(f"Running {workers} workers of {topology}; Ctrl-C ends them in good order.", err=True)
    port = flags.get("metrics_port")
    summaries = supervise(
        lambda number: [*arguments, *(["--metrics-port", str(port + number)] if port else [])], workers, stop
    )
    _show(merged(summaries), as_json)
    return 0


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    from streamml.cli.tables import print_summary

    print_summary(summary)
