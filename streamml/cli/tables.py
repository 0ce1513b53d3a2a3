"""Results as tables, for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

_FRAME: Final = 3


def printable(text: str) -> str:
    """``text`` on one line and without effect on a terminal: whatever is no character to be seen is written as its escape.

    What comes out of a topic may hold anything, sequences that write to the clipboard or hide lines included.
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; lines separated by tabs where no person looks at it.

    Only the last column is wrapped: names are there to be copied. A table that is wider than the terminal even so is
    written as lines, which a terminal folds without cutting what is copied in two.
    """
    cells = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _print_lines(title, [list(columns), *cells], "\t")
        return
    console = Console()
    *names, words = [list(column) for column in zip(columns, *cells, strict=True)]
    narrowest = [max(map(len, column)) for column in names] + [_longest_word(words)]
    if sum(width + _FRAME for width in narrowest) + 1 > console.width:
        widths = [*narrowest[:-1], 0]
        lines = [map(str.ljust, row, widths) for row in (list(columns), *cells)]
        _print_lines(title, lines, "  ")
        return
    table = Table(title=title, title_justify="left", header_style="bold")
    for number, name in enumerate(columns, 1):
        table.add_column(name, overflow="fold", no_wrap=number < len(columns))
    for row in cells:
        # Text, as brackets in a name are no markup.
        table.add_row(*map(Text, row))
    console.print(table)


def _longest_word(cells: Sequence[str]) -> int:
    return max(len(word) for cell in cells for word in (cell.split() or [""]))


def _print_lines(title: str, rows: Iterable[Iterable[str]], between: str) -> None:
    click.echo(title)
    for row in rows:
        click.echo(between.join(row).rstrip())


def print_summary(summary: Mapping[str, Any]) -> None:
    """What a run did."""
    latency = summary.get("latency_ms")
    rows: list[tuple[str, object]] = [
        (name.replace("_", " "), f"{summary[name]:,}")
        for name in ("consumed", "predictions", "dead_letters", "filtered", "events_per_s")
    ]
    rows.append(("seconds", summary["seconds"]))
    if latency is not None:
        rows.append(("latency p50 / p95 / p99", " / ".join(_ms(latency[name]) for name in ("p50", "p95", "p99"))))
    rows.append(("mean batch rows", "–" if summary["mean_batch_rows"] is None else summary["mean_batch_rows"]))
    rows += [(f"dead letters, {reason}", f"{count:,}") for reason, count in summary["dead_letters_by_error"].items()]
    rows += [(f"flag {flag}", f"{count:,}") for flag, count in sorted(summary["flags"].items())]
    print_table("Summary", ("what", "value"), rows)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,} ms"
