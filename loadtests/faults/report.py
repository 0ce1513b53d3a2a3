"""What runs came to, as a table for a terminal and as one page for a browser."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

Run = dict[str, Any]
_WIDTH, _HEIGHT = 1000, 180
_COLORS = {"produced": "#999999", "predicted": "#2166ac", "duplicated": "#d6604d", "dead_letters": "#8c6bb1"}
_COUNTS = ("produced", "predicted", "dead_letters", "lost", "duplicated", "wrong", "out_of_order")
_COLUMNS = ("strikes", "lasted s, median / most", "silence s, median / most", "duplicates, mean / most")
_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; max-width: 1060px; margin: 2em auto; color: #222; }
table { border-collapse: collapse; margin: .6em 0; } th, td { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; } .bad { color: #b2182b; font-weight: bold; } svg { background: #fafafa; }
h2 { margin-top: 2em; } .note { color: #666; }
"""


def table(runs: Sequence[Run]) -> Table:
    """A line per fault of each run."""
    found = Table(
        title="Faults", caption="Silence: the longest time without a new prediction, from a strike to the next."
    )
    for name in ("seed", "fault", *_COLUMNS):
        found.add_column(name, justify="left" if name == "fault" else "right")
    for run in runs:
        for name, one in run["by_fault"].items():
            found.add_row(str(run["seed"]), name, *_cells(one))
        found.add_section()
    return found


def counts(runs: Sequence[Run]) -> Table:
    """A line per run: what went in and what came out."""
    found = Table()
    for name in ("seed", "who", *_COUNTS, "kills"):
        found.add_column(name.replace("_", " "), justify="left" if name == "who" else "right")
    for run in runs:
        numbers = [f"{run['verdict'][name]:,}" for name in _COUNTS]
        found.add_row(str(run["seed"]), _who(run), *numbers, str(run["kills"]), style="" if run["passed"] else "red")
    return found


def _who(run: Run) -> str:
    return run["guarantee"].replace("_", " ") if run["who"] == "worker" else "hand-written loop"


def _cells(one: dict[str, Any]) -> tuple[str, str, str, str]:
    lasted, silence, again = one["lasted_s"], one["silence_s"], one["duplicates"]
    return (
        str(one["strikes"]),
        f"{lasted['median']} / {lasted['most']}",
        f"{silence['median']} / {silence['most']}",
        f"{again['mean']} / {again['most']}",
    )


def write_page(folder: Path) -> Path:
    """One page of all runs whose results are in ``folder``, the latest first."""
    runs = [json.loads(path.read_text()) for path in folder.glob("chaos-*.json")]
    runs.sort(key=lambda run: run["date"], reverse=True)
    page = folder / "chaos.html"
    body = "\n".join(map(_section, runs))
    page.write_text(
        f"<!doctype html>\n<html lang='en'><meta charset='utf-8'><title>Faults</title><style>{_STYLE}</style>\n"
        f"<h1>Workers under faults</h1>\n<p>How to read it: docs/chaos.md.</p>\n{body}\n</html>\n"
    )
    return page


def _section(run: Run) -> str:
    verdict = run["verdict"]
    bad = ("lost", "wrong", "out_of_order")
    heads = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in (*_COUNTS, "kills", "duplicates per kill"))
    cells = "".join(
        f"<td class='{'bad' if name in bad and verdict[name] else ''}'>{verdict[name]:,}</td>" for name in _COUNTS
    )
    cells += f"<td>{run['kills']}</td><td>{run['duplicates_per_kill'] or ''}</td>"
    rows = "".join(
        f"<tr><td>{name}</td><td style='text-align:left'>{html.escape(run['faults'][name])}</td>"
        + "".join(f"<td>{cell}</td>" for cell in _cells(one))
        + "</tr>"
        for name, one in run["by_fault"].items()
    )
    fast = "; ".join(f"{count:,} {fate.replace('_', ' ')}" for fate, count in run.get("fast_features", {}).items())
    notes = [f"{name} was skipped: {why}" for name, why in run["skipped"].items()] + run["remarks"]
    return (
        f"<h2>Seed {run['seed']}: {'passed' if run['passed'] else 'failed'}</h2>\n"
        f"<p class='note'>{run['date']}; {run['workers']} workers, {run['rate']:,.0f} events/s for {run['seconds']:.0f} s, "
        f"{_who(run)}; {'Redis Cluster' if run.get('cluster') else 'one Redis'}; processes ended with {html.escape(json.dumps(run['exits']))}</p>\n"
        f"<table><tr>{heads}</tr><tr>{cells}</tr></table>\n{_plot(run)}\n"
        f"<table><tr><th>fault</th><th></th>{''.join(f'<th>{name}</th>' for name in _COLUMNS)}</tr>{rows}</table>\n"
        + (f"<p class='note'>Fast features of all predictions: {fast}</p>\n" if fast else "")
        + "".join(f"<p class='bad'>{html.escape(note)}</p>\n" for note in notes)
    )


def _plot(run: Run) -> str:
    """Records per second over time, and a line at the top for every strike that ended it where it did."""
    names = list(run["by_fault"])
    lanes = 14 * len(names)
    seconds = max(1, len(run["timeline"]["produced"]))
    most = max(1, *(max(line, default=0) for line in run["timeline"].values()))

    def x(at_s: float) -> float:
        return round(130 + at_s / seconds * (_WIDTH - 140), 1)

    def y(count: float) -> float:
        return round(lanes + _HEIGHT - 20 - count / most * (_HEIGHT - 30), 1)

    parts = []
    for lane, name in enumerate(names):
        parts.append(f"<text x='0' y='{lane * 14 + 11}' font-size='11'>{name}</text>")
        for one in run["strikes"]:
            if one["name"] == name:
                width = max(2.0, x(one["ended_s"]) - x(one["at_s"]))
                title = f"{one['at_s']} s: silence {one['silence_s']} s, {one['duplicates']} duplicates"
                parts.append(
                    f"<rect x='{x(one['at_s'])}' y='{lane * 14 + 3}' width='{width:.1f}' height='9' fill='#555'>"
                    f"<title>{title}</title></rect>"
                )
    for name, line in run["timeline"].items():
        points = " ".join(f"{x(second + 0.5)},{y(count)}" for second, count in enumerate(line))
        parts.append(f"<polyline points='{points}' fill='none' stroke='{_COLORS[name]}' stroke-width='1.5'/>")
    parts += [
        f"<text x='{x(second)}' y='{lanes + _HEIGHT - 4}' font-size='11'>{second} s</text>"
        for second in range(0, seconds, 10)
    ]
    for place, (name, color) in enumerate(_COLORS.items()):
        text = name.replace("_", " ")
        parts.append(f"<text x='0' y='{lanes + 40 + 16 * place}' font-size='11' fill='{color}'>{text}</text>")
    parts.append(f"<text x='0' y='{lanes + 20}' font-size='11'>most {most:,}/s</text>")
    return f"<svg width='{_WIDTH}' height='{lanes + _HEIGHT}'>{''.join(parts)}</svg>"
