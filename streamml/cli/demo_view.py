"""The demo's live view, and its keys."""

from __future__ import annotations

import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich import box
from rich.columns import Columns
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from streamml.cli.demo_fast import fast_features

_KEYS: Final = {"k": "kill", "p": "poison", "s": "slow", "f": "app", "b": "features", "r": "mend", "y": "publish"}
_KEYS_TOLD: Final = (
    "k kill a worker   f kill the features app   p 1 % poison   s slow Redis   b bad features   q quit\n"
)
_LEAVING: Final = "the stream is ended; what is on the way arrives …   q do not wait for it\n"
_FLIGHT: Final = 22
_REDRAW_S: Final = 0.25


def watch(show: Any) -> None:
    """Show a demo until it is over; ``q`` ends the stream, and pressed again everything at once."""
    with _keys() as pressed, Live(refresh_per_second=4, screen=False) as live:
        drawn = 0.0
        while not show.over:
            key = pressed(0.1)
            if key == "q" and show.leaving:
                return
            if key == "q":
                show.end_stream()
            if key in _KEYS:
                show.fault(_KEYS[key])
            show.tick()
            if time.monotonic() - drawn > _REDRAW_S:
                drawn = time.monotonic()
                live.update(picture(show.snapshot(), live.console.width))
        show.tick()
        live.update(picture(show.snapshot(), live.console.width))


@contextmanager
def _keys() -> Iterator[Any]:
    """Keys as they are pressed, without return; the terminal is put back as it was."""
    if not sys.stdin.isatty():
        yield time.sleep
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)

    def pressed(seconds: float) -> str | None:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return sys.stdin.read(1) if ready else None

    try:
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def picture(now: dict[str, Any], width: int) -> Group:
    """A snapshot, drawn.

    Args:
        width: of the terminal, columns.
    """
    return Group(_figures(now, width), _predictions(now["recent"]), _hint(now))


def _figures(now: dict[str, Any], width: int) -> Panel:
    latency, referee, quality = now["latency_ms"], now["referee"], now["quality"]
    stream = _block(
        "Stream",
        f"departures {now['sent']:,} of {now['events']:,}",
        f"poison     {referee['poison']:,}",
        f"rate       {now['rate']:,.0f}/s",
        f"on the way {now['lag']:,}",
        "latency    "
        + (" / ".join(f"{latency[name]:.0f}" for name in ("p50", "p95", "p99")) + " ms" if latency else "–"),
    )
    books = _block(
        "Referee",
        f"predictions {referee['predicted']:,}",
        f"dead letters {referee['dead_letters']:,}",
        f"duplicated {referee['duplicated']:,}",
        f"wrong {referee['wrong']:,}   corrected {referee['corrected']:,}",
        f"out of order {referee['out_of_order']:,}",
    )
    judged = _block(
        f"Quality on {quality['flights']:,} flights",
        f"AUC   {quality['auc']:.4f}",
        f"  by departure delay alone {quality['baseline_auc']:.4f}",
        f"Brier {quality['brier']:.4f}",
        f"  by departure delay alone {quality['baseline_brier']:.4f}",
    )
    parts = Group(Columns([stream, books, judged], padding=(0, 3)), "", fast_features(now, width))
    return Panel(parts, title="streamml: flight departures from New York, 2013", title_align="left")


def _block(title: str, *lines: str) -> Text:
    return Text.assemble((title, "bold"), *(f"\n{line}" for line in lines))


def _predictions(recent: list[Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=False, header_style="bold")
    table.add_column("flight", min_width=_FLIGHT, no_wrap=True)
    for name in ("left late by", "expected on arrival", "late?"):
        table.add_column(name, justify="right")
    for one in recent:
        risk = one["late_probability"]
        style = "red" if risk > 0.5 else "yellow" if risk > 0.2 else "green"
        shown = Text(f"{risk:.0%}", style)
        table.add_row(one["flight_id"], f"{one['departure_delay']:.0f} min", f"{one['expected_delay']:+.0f} min", shown)
    return table


def _hint(now: dict[str, Any]) -> Text:
    told = Text(_LEAVING if now["leaving"] else _KEYS_TOLD, "dim")
    told.append(_incident(now["incident"]), "bright_magenta")
    if now["sent"] == now["events"]:
        told.append("every departure is on the topic   ", "yellow")
    if now["poisoning"]:
        told.append("poison is on   ", "yellow")
    for fault in [one for one in now["faults"] if one.name != "app"][-3:]:
        after = f"first new prediction after {fault.recovered_s} s" if fault.recovered_s is not None else "recovering …"
        told.append(f"\n{fault.name} at {fault.at_s:.0f} s: {after}", "cyan")
    return told


def _incident(told: dict[str, Any]) -> str:
    """What there is to know of bad features, and the key that is next."""
    number, compared = told["replay"], told["compared"]
    match told["stage"]:
        case "breaking":
            return "loading wrong features …\n"
        case "broken":
            return "wrong features are live: look at the referee and at the AUC   r roll back, replay and compare\n"
        case "replaying":
            return "rolled back; what was scored meanwhile is replayed and compared …\n"
        case "compared":
            changed, same = compared["counts"]["changed"], compared["counts"]["same"]
            counts = (
                f"replay {number}: {changed:,} predictions changed, {same:,} are the same   y publish the changed ones"
            )
            return f"{counts}\nwhat changed, as a page: {told['page']}\n"
        case "publishing":
            return f"publishing what replay {number} changed …\n"
        case "published":
            return f"replay {number} is published: {told['published']['written']:,} corrections\n"
    return ""
