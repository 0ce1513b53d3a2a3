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

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_KEYS: Final = {"k": "kill", "p": "poison", "s": "slow", "f": "app", "b": "features", "r": "mend", "y": "publish"}
_KEYS_TOLD: Final = (
    "k kill −9 a worker   f kill −9 the features app   p 1 % poison   s slow Redis   b bad features   q quit\n"
)
_LEAVING: Final = "the stream is ended; what is on the way arrives …   q do not wait for it\n"
_REDRAW_S: Final = 0.25


def watch(show: Any) -> None:
    """Show a demo until it is over; ``q`` ends the stream, and pressed again everything at once."""
    with _keys() as pressed, Live(_picture(show.snapshot()), refresh_per_second=4, screen=False) as live:
        drawn = time.monotonic()
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
                live.update(_picture(show.snapshot()))
        show.tick()
        live.update(_picture(show.snapshot()))


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


def _picture(now: dict[str, Any]) -> Group:
    return Group(_figures(now), _predictions(now["recent"]), _hint(now))


def _figures(now: dict[str, Any]) -> Panel:
    table = Table.grid(padding=(0, 3))
    for _ in range(3):
        table.add_column()
    latency, referee, quality = now["latency_ms"], now["referee"], now["quality"]
    stream = _lines(
        f"departures {now['sent']:,} of {now['events']:,}",
        f"poison     {referee['poison']:,}",
        f"rate       {now['rate']:,.0f}/s",
        f"on the way {now['lag']:,}",
        "latency    "
        + (" / ".join(f"{latency[name]:.0f}" for name in ("p50", "p95", "p99")) + " ms" if latency else "–"),
        *(f"{name} {_shares(shares)}" for name, shares in now["fast"].items()),
    )
    books = _lines(
        f"predictions {referee['predicted']:,}",
        f"dead letters {referee['dead_letters']:,}",
        f"duplicated {referee['duplicated']:,}",
        f"wrong {referee['wrong']:,}   corrected {referee['corrected']:,}",
        f"out of order {referee['out_of_order']:,}",
    )
    judged = _lines(
        f"AUC   {quality['auc']:.4f}",
        f"  by departure delay alone {quality['baseline_auc']:.4f}",
        f"Brier {quality['brier']:.4f}",
        f"  by departure delay alone {quality['baseline_brier']:.4f}",
    )
    table.add_row(
        Text("Stream", "bold"), Text("Referee", "bold"), Text(f"Quality on {quality['flights']:,} flights", "bold")
    )
    table.add_row(stream, books, judged)
    return Panel(table, title="streamml: flight departures from New York, 2013", title_align="left")


def _shares(shares: dict[str, float]) -> str:
    """Of how many predictions the values of a fast set were used, and why not of the others."""
    return ", ".join(f"{share:.0%} {fate}" for fate, share in shares.items())


def _predictions(recent: list[Any]) -> Table:
    table = Table(expand=False, header_style="bold")
    for name in ("flight", "left late by", "expected on arrival", "late?"):
        table.add_column(name, justify="left" if name == "flight" else "right")
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
    for fault in now["faults"][-3:]:
        after = f"first new prediction after {fault.recovered_s} s" if fault.recovered_s is not None else "recovering …"
        told.append(f"{fault.name} at {fault.at_s:.0f} s: {after}   ", "cyan")
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


def _lines(*lines: str) -> Text:
    return Text("\n".join(lines))
