"""What the policies came to: a table for a terminal, plots, and a page with both."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from loadtests.bars import Bar, bars

Result = dict[str, Any]


def table(found: Result) -> Table:
    """A line per policy, a column per load."""
    shown = Table(title="Batch policies: p50 / p99 ms, share later than the budget")
    shown.add_column("policy")
    for load in found["loads"]:
        shown.add_column(load, justify="right")
    shown.add_column("catching up", justify="right")
    for name, row in found["policies"].items():
        cells = [_cell(row["loads"][load]) for load in found["loads"]]
        style = "bold" if row["ours"] else ""
        shown.add_row(name, *cells, f"{row['catch_up_s']:.0f} s" if row["catch_up_s"] else "gives up", style=style)
    return shown


def _cell(one: Mapping[str, float]) -> str:
    return f"{one['p50_ms']:.1f} / {one['p99_ms']:.1f}, {one['miss']:.1%}"


def write(found: Result, folder: Path) -> list[Path]:
    """The plots as SVG, and one page with all of them."""
    plots = {
        "simulate-miss.svg": _bars(
            found, "Later than 20 ms, % of events; bursty, 10,000/s on average", "bursty 10,000/s", "miss", 100.0
        ),
        "simulate-p99.svg": _bars(found, "p99, ms; Poisson, 14,000/s", "Poisson 14,000/s", "p99_ms", 1.0, most=60.0),
    }
    for name, plot in plots.items():
        (folder / name).write_text(plot)
    page = folder / "simulate.html"
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in ("policy", *found["loads"], "catching up, s"))
    lines = "".join(
        f"<tr{' class=ours' if row['ours'] else ''}><td>{html.escape(name)}</td>"
        + "".join(f"<td>{_cell(row['loads'][load])}</td>" for load in found["loads"])
        + f"<td>{row['catch_up_s'] or ''}</td></tr>\n"
        for name, row in found["policies"].items()
    )
    page.write_text(
        "<!doctype html>\n<html lang='en'><meta charset='utf-8'><title>Batch policies</title><style>"
        "body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; } td, th { padding: .2em .8em; text-align: right; }"
        " td:first-child, th:first-child { text-align: left; } .ours { font-weight: bold; }</style>\n"
        f"<h1>Batch policies</h1>\n<p>p50 / p99 in ms, share later than the budget; how to read it: docs/guide/speed.md.</p>\n"
        f"<table><tr>{heads}</tr>\n{lines}</table>\n{''.join(plots.values())}\n</html>\n"
    )
    return [page, *(folder / name for name in plots)]


def _bars(found: Result, title: str, load: str, figure: str, scale: float, most: float = 100.0) -> str:
    values = {name: row["loads"][load][figure] * scale for name, row in found["policies"].items()}
    shown = [Bar(name, value, f"{value:,.1f}", found["policies"][name]["ours"]) for name, value in values.items()]
    return bars(title, shown, most)
