"""What the demo's live view says."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from streamml.cli.demo_view import picture
from streamml.ops.referee import Place, Referee

Told = dict[str, object]


ALL_GOES_WELL: Told = {"state": "running", "starts": 1, "kills": []}


def shown(
    referee: Referee, incident: Told, *, leaving: bool = False, app: Told = ALL_GOES_WELL, width: int = 120
) -> str:
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
        "fast_features": {
            "airport_recent": {
                "shares": {"fresh": 0.6, "quiet": 0.2, "stale": 0.2},
                "course": [None] * 36 + [1.0, 0.0, 0.0, 1.0],
            }
        },
        "features_app": app,
        "recent": [],
        "faults": [],
        "poisoning": False,
        "incident": incident,
    }
    console = Console(width=width)
    with console.capture() as captured:
        console.print(picture(now, width))
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
    assert "features app running" in picture
    assert re.search(r"airport_recent +·+▇▁▁▇ +75% fresh +25% stale", picture)


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


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize("state", ["killed", "restarting"])
def test_a_kill_of_the_features_app_says_when_values_were_flagged_and_fresh_again(state: str, width: int) -> None:
    outage = {
        "fresh_before": 0.95,
        "flagged_after_s": 0.8,
        "flagged": 1.0,
        "fresh_again_after_s": 4.2,
        "fresh_after": 0.9,
    }
    app = {"state": state, "starts": 2, "kills": [{"at_s": 12.3, "sets": {"airport_recent": outage}}]}
    told = {"stage": "none", "replay": 0, "compared": {}, "published": {}}
    said = shown(Referee(lambda event, value: True), told, app=app, width=width)
    assert f"features app {state}" in said
    assert max(map(len, said.splitlines())) <= width
    words = " ".join(re.sub("[│]", " ", said).split())
    assert "airport_recent 95% fresh before, flagged after 0.8 s, fresh again after 4.2 s (90%)" in words
