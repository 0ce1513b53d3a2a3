"""``streamml demo``."""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

import click

from streamml.cli.options import json_option, print_json


@click.command("demo")
@click.option(
    "--events", type=click.IntRange(1), help="End after so many departures; default: all of October to December."
)
@click.option("--rate", type=click.FloatRange(1), default=500, show_default=True, help="Departures per second.")
@click.option("--workers", type=click.IntRange(1, 16), default=1, show_default=True, help="Worker processes.")
@click.option("--faults", default="", help="Faults that come by themselves: kill,poison,slow,features,app.")
@click.option("--brokers", help="Use this broker instead of an embedded one.")
@click.option("--redis-url", help="Use this Redis instead of an embedded one.")
@json_option
def command(
    events: int | None,
    rate: float,
    workers: int,
    faults: str,
    brokers: str | None,
    redis_url: str | None,
    as_json: bool,
) -> int:
    """Stream real flight departures through Kafka, Redis and a model, and hold the predictions against what happened.

    Keys in the live view: k kills a worker (SIGKILL), f the Faust app that keeps the fast features fresh; p switches 1 % poison on or off, s slows Redis for 3 s, b loads wrong features; r goes
    back to the right ones, scores what came meanwhile again and compares, y publishes what changed; q quits.
    """
    from streamml.ops.demo.faults import faults_of
    from streamml.ops.demo.show import Show
    from streamml.ops.demo.stage import DemoOptions

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    named = faults_of([name for name in faults.split(",") if name])
    options = DemoOptions(events, rate, workers, named, brokers=brokers, redis_url=redis_url)
    live = sys.stdout.isatty() and not as_json
    with Show(options, lambda text: click.echo(f"{text} …", err=True)) as show:
        try:
            show.start()
            if live:
                from streamml.cli.demo_view import watch

                watch(show)
            else:
                _wait(show)
            summary = show.finish()
        except KeyboardInterrupt:
            click.echo("Interrupted; ending everything that was started.", err=True)
            return 130
    if as_json:
        print_json(summary)
    else:
        _print(summary)
    return 0 if _clean(summary) else 3


def _wait(show: Any) -> None:
    told = time.monotonic()
    while not show.over:
        show.tick()
        time.sleep(0.1)
        if time.monotonic() - told > 5:
            told = time.monotonic()
            now = show.snapshot()
            click.echo(f"{now['sent']:,} of {now['events']:,} departures, {now['lag']:,} on their way …", err=True)
    show.tick()


def _clean(summary: dict[str, Any]) -> bool:
    found = summary["referee"]
    return not (found["lost"] or found["wrong"])


def _print(summary: dict[str, Any]) -> None:
    from streamml.cli.demo_fast import used
    from streamml.cli.tables import print_table

    quality, latency = summary["quality"], summary["latency_ms"]
    print_table(
        "Summary",
        ("what", "value"),
        [
            ("departures", f"{summary['departures']:,} in {summary['seconds']} s"),
            ("predictions", f"{summary['predictions']:,}"),
            ("dead letters", f"{summary['dead_letters']:,}"),
            ("latency p50 / p95 / p99, ms", " / ".join(str(latency[name]) for name in ("p50", "p95", "p99"))),
            ("AUC, and of the departure delay alone", f"{quality['auc']} / {quality['baseline_auc']}"),
            ("Brier score, likewise (lower is better)", f"{quality['brier']} / {quality['baseline_brier']}"),
            *((f"{name}: used or not", used(shares)) for name, shares in summary["fast_features"].items()),
            *_kills(summary["features_app"]),
            *((f"referee: {name.replace('_', ' ')}", count) for name, count in summary["referee"].items()),
            *(
                (
                    f"fault at {fault['at_s']:.0f} s: {fault['fault']}",
                    f"first new prediction after {fault['recovered_s']} s",
                )
                for fault in summary["faults"]
                if fault["fault"] != "app"
            ),
            *(("bad features", told) for told in _outcome(summary["incident"])),
        ],
    )


def _kills(app: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What became of the fast sets whenever the features app was killed."""
    from streamml.cli.demo_fast import told_of

    kills = [] if app is None else app["kills"]
    return [
        (f"features app killed at {kill['at_s']:.0f} s: {name}", told_of(outage))
        for kill in kills
        for name, outage in kill["sets"].items()
    ]


def _outcome(incident: dict[str, Any]) -> list[str]:
    """How bad features ended, for a summary."""
    number = incident["replay"]
    match incident["stage"]:
        case "none":
            return []
        case "published":
            return [f"replay {number}: {incident['published']['written']:,} corrections published"]
        case "compared" | "publishing":
            return [f"replay {number}: {incident['compared']['counts']['changed']:,} changed, not published"]
    return ["never mended: that is what is wrong"]
