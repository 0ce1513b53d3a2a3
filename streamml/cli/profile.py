"""``streamml profile``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import Any, Final

import click

from streamml.cli.options import effective_settings, json_option, print_json, settings_options
from streamml.errors import ConfigError, FatalError

_BAR: Final = 30


@click.command("profile")
@click.argument("topology")
@settings_options
@click.option(
    "--events", type=click.IntRange(1_000), default=100_000, show_default=True, help="Latest records to drain."
)
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Drains of each kind.")
@click.option(
    "--flame", type=click.Path(path_type=Path), help="Also write a flame graph by thread here (SVG; needs py-spy)."
)
@click.option(
    "--torch-trace", type=click.Path(path_type=Path), help="Also write a trace of PyTorch's here (JSON, for Perfetto)."
)
@click.option("--baseline-only", is_flag=True, hidden=True)
@json_option
def command(
    topology: str,
    events: int,
    rounds: int,
    flame: Path | None,
    torch_trace: Path | None,
    baseline_only: bool,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Find the step that holds TOPOLOGY up: drain its latest records with one step at a time made free.

    Reads the real input topics, features and models; writes to a topic of its own, which is deleted at the end. Neither the
    topology's group nor its prediction topic is touched.
    """
    from streamml.compose.locate import locate_topology
    from streamml.ops.profile import ProfileOptions, profile

    profiler = None if flame is None else _profiler()
    settings = effective_settings(config, **flags).settings
    located = locate_topology(topology)
    options = ProfileOptions(events, rounds, baseline_only, torch_trace)
    found = profile(located, settings, options, lambda text: click.echo(f"{text} …", err=True))
    if flame is not None and profiler is not None:
        _draw(profiler, flame, [topology, *_passed_on(config, flags), "--events", str(events), "--rounds", str(rounds)])
        found["flame"] = str(flame)
    if torch_trace is not None:
        found["torch_trace"] = str(torch_trace)
    if as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from streamml.cli.tables import print_table

    most = max([step["speed_up"] or 1.0 for step in found["steps"]], default=1.0)
    rows: list[tuple[object, ...]] = [("nothing", f"{found['events_per_s']:,}", "1.00", "", _bar(1.0, most))]
    for step in found["steps"]:
        if step["speed_up"] is None:
            rows.append((step["free"], "–", "–", "–", "drops or makes rows, so it cannot be made free"))
            continue
        cells = f"{step['events_per_s']:,}", f"{step['speed_up']:.2f}", f"{step['share']:.0%}"
        rows.append((step["free"], *cells, _bar(step["speed_up"], most)))
    title = f"{found['events']:,} events, median of {found['rounds']}"
    print_table(title, ("made free", "events/s", "speed-up", "share of time", ""), rows)
    click.echo(f"Constraint: {found['constraint'] or 'none'}")
    click.echo(found["advice"])
    if "flame" in found:
        click.echo(f"Flame graph: {found['flame']}")
    if "torch_trace" in found:
        click.echo(f"Trace: {found['torch_trace']}; open it at https://ui.perfetto.dev")


def _bar(value: float, most: float) -> str:
    return "█" * max(1, round(_BAR * value / most))


def _passed_on(config: Path | None, flags: dict[str, Any]) -> list[str]:
    named = {"--config": config, **{f"--{name.replace('_', '-')}": value for name, value in flags.items()}}
    return [part for name, value in named.items() if value is not None for part in (name, str(value))]


def _profiler() -> str:
    found = which("py-spy", path=str(Path(sys.executable).parent)) or which("py-spy")
    if found is None:
        raise ConfigError("A flame graph is drawn by py-spy, which is not installed: pip install py-spy.")
    return found


def _draw(profiler: str, file: Path, arguments: list[str]) -> None:
    """Sample the threads of a process that drains with everything real."""
    click.echo("Drawing the flame graph …", err=True)
    watched = [sys.executable, "-m", "streamml", "profile", *arguments, "--baseline-only", "--json"]
    record = [profiler, "record", "--threads", "--rate", "200", "--format", "flamegraph", "--output", str(file)]
    done = subprocess.run([*record, "--", *watched], capture_output=True, text=True, check=False)
    if done.returncode or not file.exists():
        raise FatalError(f"py-spy did not draw the flame graph: {done.stderr.strip().splitlines()[-1:]}")
