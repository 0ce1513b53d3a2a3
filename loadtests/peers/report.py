"""What a comparison came to: a table for a terminal, and a plot."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from loadtests.bars import Bar, bars

Result = dict[str, Any]
_ANSWERED = 0.99


def table(found: Result) -> Table:
    """A line for each."""
    conditions = found["conditions"]
    title = f"Beside others: medians of {conditions['rounds']}, {conditions['cores']} cores"
    shown = Table(title=title, title_justify="left")
    shown.add_column("who", no_wrap=True)
    for name in ("events/s", "of ours", "cpu s per million", "MB", f"p50 / p99 ms at {conditions['rate']:,}/s"):
        shown.add_column(name, justify="right")
    shown.add_column("")
    ours = next(row["events_per_s"] for row in found["contenders"].values() if row["ours"])
    for row in found["contenders"].values():
        shown.add_row(*_cells(row, ours, conditions["events"]), style="bold" if row["ours"] else "")
    return shown


def _cells(row: Result, ours: float | None, events: int) -> list[str]:
    speed = row["events_per_s"]
    notes = [f"backlog of {row['events']:,}"] if row["events"] != events else []
    return [
        f"{row['title']} {row['version']}".strip(),
        f"{speed:,}" if speed else "–",
        f"{speed / ours:.2f}" if speed and ours else "–",
        "–" if row["cpu_s_per_million"] is None else f"{row['cpu_s_per_million']:,}",
        "–" if row["most_mb"] is None else f"{row['most_mb']:,}",
        _latency(row["latency_ms"]),
        "; ".join([*notes, *([row["problem"]] if row["problem"] else [])]),
    ]


def _latency(found: Result | None) -> str:
    if found is None:
        return "–"
    behind = f", {found['answered']:.0%} answered" if found["answered"] < _ANSWERED else ""
    return f"{found['p50']:.1f} / {found['p99']:.1f}{behind}"


def plot(found: Result) -> str:
    """Events per second as bars, as SVG."""
    # The bare loop does no work: it would make all others short.
    rows = [row for name, row in found["contenders"].items() if row["events_per_s"] and name != "bare"]
    shown = [
        Bar(f"{row['title']} {row['version']}".strip(), row["events_per_s"], f"{row['events_per_s']:,}", row["ours"])
        for row in rows
    ]
    most = max((bar.value for bar in shown), default=1.0)
    return bars("Draining a backlog, events per second", shown, most)
