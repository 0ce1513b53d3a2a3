"""What the demo's live view says."""

from __future__ import annotations

import pytest
from rich.console import Console

from streamml.cli.demo_view import _picture
from streamml.ops.referee import Place, Referee

Told = dict[str, object]


def shown(referee: Referee, incident: Told, *, leaving: bool = False) -> str:
    figures = dict.fromkeys(("auc", "brier", "baseline_auc", "baseline_brier"), 0.5)
    now = {
        "sent": 1000,
        "events": 1000,
        "leaving": leaving,
        "rate": 0.0,
        "lag": 0,
        "latency_ms": {},
        "referee": referee.verdict().document(),
        "quality": {"flights": 0, **figures},
        "fast": {"airport_recent": {"fresh": 0.75, "stale": 0.25}},
        "recent": [],
        "faults": [],
        "poisoning": False,
        "incident": incident,
    }
    console = Console(width=120)
    with console.capture() as captured:
        console.print(_picture(now))
    return captured.get()


def test_poison_is_counted_beside_the_departures_and_not_as_some() -> None:
    referee = Referee(lambda event, value: True)
    for offset in range(1000):
        referee.produced(Place(0, offset), offset)
    for offset in range(1000, 1003):
        referee.produced(Place(0, offset), None)
    picture = shown(referee, {"stage": "none", "replay": 0, "compared": {}, "published": {}})
    assert "every departure is on the topic" in picture
    assert "departures 1,000 of 1,000" in picture
    assert "poison     3" in picture
    assert "airport_recent 75% fresh, 25% stale" in picture


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("broken", "r roll back, replay and compare"),
        ("compared", "replay 7: 4,212 predictions changed, 30 are the same   y publish the changed ones"),
        ("compared", "what changed, as a page: /tmp/page.html"),
        ("published", "replay 7 is published: 4,212 corrections"),
    ],
)
def test_an_incident_says_how_far_it_is_and_which_key_is_next(stage: str, said: str) -> None:
    counts = {"compared": {"counts": {"changed": 4212, "same": 30}}, "published": {"written": 4212}}
    told = {"stage": stage, "replay": 7, "page": "/tmp/page.html", **counts}
    assert said in shown(Referee(lambda event, value: True), told)


def test_who_quits_hears_what_is_waited_for() -> None:
    told = {"stage": "none", "replay": 0, "compared": {}, "published": {}}
    picture = shown(Referee(lambda event, value: True), told, leaving=True)
    assert "what is on the way arrives …   q do not wait for it" in picture
    assert "k kill" not in picture
