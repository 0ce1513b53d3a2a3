"""What the demo's live view says."""

from __future__ import annotations

from rich.console import Console

from streamml.cli.demo_view import _picture
from streamml.ops.referee import Place, Referee


def test_poison_is_counted_beside_the_departures_and_not_as_some() -> None:
    referee = Referee(lambda event, value: True)
    for offset in range(1000):
        referee.produced(Place(0, offset), offset)
    for offset in range(1000, 1003):
        referee.produced(Place(0, offset), None)
    figures = dict.fromkeys(("auc", "brier", "baseline_auc", "baseline_brier"), 0.5)
    now = {
        "sent": 1000,
        "events": 1000,
        "rate": 0.0,
        "lag": 0,
        "latency_ms": {},
        "referee": referee.verdict().document(),
        "quality": {"flights": 0, **figures},
        "recent": [],
        "faults": [],
        "poisoning": False,
    }
    console = Console(width=120)
    with console.capture() as shown:
        console.print(_picture(now))
    assert "departures 1,000 of 1,000" in shown.get()
    assert "poison     3" in shown.get()
