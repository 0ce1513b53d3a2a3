"""Results as tables, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    Console().print(table)


def print_summary(summary: Mapping[str, Any]) -> None:
    """What a run did."""
    latency = summary["latency_ms"]
    rows: list[tuple[str, object]] = [
        (name.replace("_", " "), f"{summary[name]:,}")
        for name in ("consumed", "predictions", "dead_letters", "filtered", "events_per_s")
    ]
    rows.append(("seconds", summary["seconds"]))
    rows.append(("latency p50 / p95 / p99", " / ".join(_ms(latency[name]) for name in ("p50", "p95", "p99"))))
    rows.append(("mean batch rows", summary["mean_batch_rows"]))
    rows += [(f"dead letters, {reason}", f"{count:,}") for reason, count in summary["dead_letters_by_error"].items()]
    rows += [(f"flag {flag}", f"{count:,}") for flag, count in sorted(summary["flags"].items())]
    print_table("Summary", ("what", "value"), rows)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,} ms"
