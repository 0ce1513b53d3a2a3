"""``streamml bench``."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from streamml.cli.options import json_option, print_json
from streamml.errors import ConfigError


@click.command("bench")
@click.option("--quick", is_flag=True, help="One short round: does it run at all?")
@click.option("--out", type=click.Path(path_type=Path), help="Write the result here, as JSON.")
@json_option
def command(quick: bool, out: Path | None, as_json: bool) -> None:
    """Measure a worker against a bare client loop and a hand-written one on the embedded stack, in one run. Takes about nine minutes."""
    if not Path("loadtests/baseline/bench.py").is_file():
        raise ConfigError(
            "The load tests are not here: run `streamml bench` in a checkout of the project (or `make bench`)."
        )
    sys.path.insert(0, str(Path.cwd()))
    module = importlib.import_module("loadtests.baseline.bench")
    options = (
        module.BenchOptions(30_000, rounds=1, rates=(500,), latency_rounds=1, seconds=3.0)
        if quick
        else module.BenchOptions()
    )
    result = module.bench(options, lambda text: click.echo(f"{text} …", err=True))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")
    if as_json:
        print_json(result)
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    from streamml.cli.tables import print_table

    conditions = result["conditions"]
    rows: list[tuple[object, ...]] = [
        ("events/s, draining", *_each(result["events_per_s"])),
        ("µs per event", *_each(result["us_per_event"])),
        ("processor seconds per million", *_each(result["cpu_s_per_million"])),
    ]
    for rate, found in result["latency_ms"].items():
        cells = [
            " / ".join(f"{found[who][name]:.1f}" for name in ("p50", "p95", "p99"))
            for who in ("bare", "worker", "hand_written")
        ]
        rows.append((f"latency p50 / p95 / p99 at {int(rate):,}/s, ms", *cells, ""))
    rows.append(
        (
            "resident memory early / most, MB",
            "",
            f"{result['resident_mb']['early']} / {result['resident_mb']['most']}",
            "",
            "",
        )
    )
    title = f"{conditions['events']:,} events, median of {conditions['rounds']}, {conditions['cores']} cores"
    print_table(title, ("", "bare loop", "worker", "hand-written", "exactly once"), rows)
    print_table("µs per row, by step", ("step", "µs"), list(result["us_per_row_by_step"].items()))
    click.echo(f"Ratio to the bare loop: {result['ratio']} (rounds: {', '.join(map(str, result['ratios']))})")
    rounds = ", ".join(map(str, result["hand_written_ratios"]))
    click.echo(f"Ratio to the hand-written loop: {result['hand_written_ratio']} (rounds: {rounds})")
    rounds = ", ".join(map(str, result["exactly_once_ratios"]))
    click.echo(f"Exactly once, ratio to at least once: {result['exactly_once_ratio']} (rounds: {rounds})")
    for rate, found in result["latency_ratios"].items():
        rounds = ", ".join(map(str, found["p50"]["rounds"]))
        click.echo(f"p50 at {int(rate):,}/s, times the bare loop's: {found['p50']['median']} (rounds: {rounds})")


def _each(found: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{found[who]:,}" for who in ("bare", "worker", "hand_written", "exactly_once"))
