"""Bar charts as SVG."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _LEFT, _BAR = 760, 260, 18
_OURS, _OTHER = "#2166ac", "#999999"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Args:
        said: what is written behind it.
    """

    name: str
    value: float
    said: str
    ours: bool = False


def bars(title: str, shown: Sequence[Bar], most: float) -> str:
    """The bars below each other; one that is longer than ``most`` ends there, and says so."""
    lines = [f"<text x='0' y='14' font-weight='bold'>{html.escape(title)}</text>"]
    for place, bar in enumerate(shown):
        top = 26 + place * (_BAR + 6)
        width = max(1.0, min(bar.value, most) / most * (_WIDTH - _LEFT - 80))
        said = bar.said + (" (off the scale)" if bar.value > most else "")
        lines.append(
            f"<text x='0' y='{top + 13}'>{html.escape(bar.name)}</text>"
            f"<rect x='{_LEFT}' y='{top}' width='{width:.1f}' height='{_BAR}' fill='{_OURS if bar.ours else _OTHER}'/>"
            f"<text x='{_LEFT + width + 6:.1f}' y='{top + 13}'>{said}</text>"
        )
    height = 32 + len(shown) * (_BAR + 6)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{height}' font-family='sans-serif' "
        f"font-size='12'><rect width='100%' height='100%' fill='white'/>{''.join(lines)}</svg>\n"
    )
