"""Plots of a comparison, each as the text of an SVG element."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from streamml.ops.replay.comparison import Comparison, FieldChange, Histogram, Hour

BEFORE: Final = "#9aa5b1"
AFTER: Final = "#2563a8"
CHANGED: Final = "#d9822b"
OTHER: Final = "#b03a48"
_GRID: Final = "#e6e8eb"
_TEXT: Final = "#52606d"
_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "streamml",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_FEW_HOURS: Final = 8
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Anything may stand as a record's time; a calendar ends.
_LATEST_MS: Final = 200_000_000_000_000


def histogram(field: FieldChange) -> str:
    """The values of a field, before and after."""
    found = field.histogram
    assert found is not None

    def draw(axes: Any) -> None:
        _steps(axes, found)
        _rows(axes)
        axes.legend(loc="upper right", handlelength=1.2)

    return _drawn(draw, 4.6, 2.3)


def _steps(axes: Any, found: Histogram) -> None:
    axes.stairs(found.before, found.edges, fill=True, color=BEFORE, alpha=0.45, label="before")
    axes.stairs(found.after, found.edges, color=AFTER, linewidth=1.4, label="after")
    axes.set_xlim(found.edges[0], found.edges[-1])
    axes.set_ylim(bottom=0)


def hours(found: Comparison) -> str:
    """Rows of each hour of source time: same, changed, other."""

    def draw(axes: Any) -> None:
        starts, width = _times(found.hours), 0.8 / 24
        alike = [one.same for one in found.hours]
        changed = [one.changed for one in found.hours]
        other = [one.other for one in found.hours]
        axes.bar(starts, alike, width, color=BEFORE, alpha=0.55, label="same")
        axes.bar(starts, changed, width, bottom=alike, color=CHANGED, label="changed")
        below = [one + two for one, two in zip(alike, changed, strict=True)]
        axes.bar(starts, other, width, bottom=below, color=OTHER, label="missing, extra, dead letter")
        _rows(axes)
        _clock(axes, found.hours)
        axes.legend(loc="upper right", ncols=3, handlelength=1.2, bbox_to_anchor=(1, 1.2))

    return _drawn(draw, 9.4, 2.2)


def means(found: Comparison, field: str) -> str:
    """The mean of a field by hour of source time, before and after."""

    def draw(axes: Any) -> None:
        starts = _times(found.hours)
        for side, color, label in ((0, BEFORE, "before"), (1, AFTER, "after")):
            values = [float("nan") if (mean := one.means[field][side]) is None else mean for one in found.hours]
            axes.plot(starts, values, color=color, marker="o", markersize=3, linewidth=1.4, label=label)
        axes.set_ylabel("mean")
        _clock(axes, found.hours)
        axes.legend(loc="best", handlelength=1.2)

    return _drawn(draw, 4.6, 2.3)


def _rows(axes: Any) -> None:
    axes.set_ylabel("rows")
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _times(found: tuple[Hour, ...]) -> list[datetime]:
    return [_EPOCH + timedelta(milliseconds=min(max(one.start_ms, 0), _LATEST_MS)) for one in found]


def _clock(axes: Any, found: tuple[Hour, ...]) -> None:
    import matplotlib.dates

    dates: Any = matplotlib.dates
    locator = dates.AutoDateLocator(minticks=1, maxticks=_FEW_HOURS)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


def _drawn(draw: Callable[[Any], None], width: float, height: float) -> str:
    # A figure of its own, and no pyplot: nothing is left behind, no window system is looked for.
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = _STYLE
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(text, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    whole = text.getvalue()
    return whole[whole.index("<svg") :]
