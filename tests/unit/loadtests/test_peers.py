"""The comparison with other frameworks: what is judged, and what is shown of it."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from loadtests.baseline.load import events
from loadtests.baseline.topology import FIELDS, STORED, Event
from loadtests.peers import job
from loadtests.peers.compare import PEERS, Latency, judged
from loadtests.peers.report import plot, table

REQUIREMENTS = Path(job.__file__).parent / "requirements"


def row(title: str, events_per_s: int | None, **others: Any) -> dict[str, Any]:
    """One line of a result."""
    return {
        "title": title,
        "ours": False,
        "version": "1.0",
        "events": 1000,
        "events_per_s": events_per_s,
        "cpu_s_per_million": None if events_per_s is None else 3.0,
        "most_mb": None if events_per_s is None else 100,
        "latency_ms": None,
        "problem": "",
        **others,
    }


RESULT: dict[str, Any] = {
    "conditions": {"rounds": 1, "cores": 2, "events": 1000, "rate": 2000},
    "contenders": {
        "bare": row("bare loop", 900_000),
        "worker": row("ours", 200_000, ours=True, latency_ms={"p50": 5.0, "p99": 9.0, "answered": 1.0}),
        "slow": row("slow", 5_000, events=10, latency_ms={"p50": 500.0, "p99": 900.0, "answered": 0.4}),
        "hung": row("hung", None, problem="7 of 10 events in 120 s"),
    },
}


def shown(found: dict[str, Any]) -> list[str]:
    """Lines of the table."""
    console = Console(file=StringIO(), width=200)
    console.print(table(found))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_only_the_first_prediction_of_an_event_counts() -> None:
    assert judged([(10, 4.0), (11, 6.0), (10, 900.0)], 12, 10) == Latency(5.0, 6.0, 1.0)


def test_events_of_the_warm_up_count_for_nothing() -> None:
    assert judged([(1, 900.0), (10, 4.0)], 11, 10) == Latency(4.0, 4.0, 1.0)


def test_what_came_too_late_is_told() -> None:
    assert judged([(10, 4.0)], 14, 10).answered == 0.25


def test_nobody_is_judged_by_no_answer() -> None:
    with pytest.raises(RuntimeError, match="no event"):
        judged([(1, 900.0)], 14, 10)


def test_the_table_tells_who_falls_behind_and_who_hung() -> None:
    lines = shown(RESULT)
    assert any("slow" in line and "40% answered" in line and "backlog of 10" in line for line in lines)
    assert any("hung" in line and "7 of 10 events in 120 s" in line for line in lines)
    assert not any("ours" in line and "answered" in line for line in lines[3:])


def test_the_table_can_do_without_a_figure_of_ours() -> None:
    failed = {**RESULT["contenders"], "worker": row("ours", None, ours=True, problem="ended with exit code 1")}
    assert any("exit code 1" in line for line in shown({**RESULT, "contenders": failed}))


def test_bars_are_of_those_who_do_the_job_to_scale() -> None:
    drawn = ElementTree.fromstring(plot(RESULT)).iter("{http://www.w3.org/2000/svg}rect")
    widths = [float(one.attrib["width"]) for one in drawn if one.attrib["width"] != "100%"]
    assert len(widths) == 2
    assert widths[1] / widths[0] == pytest.approx(5_000 / 200_000, rel=0.01)


def test_peers_do_the_job_of_the_baseline() -> None:
    assert job.FIELDS == FIELDS
    assert len(STORED) == job.STORED
    assert job.Event.__struct_fields__ == tuple(Event.model_fields)
    _, value = next(events(1))
    assert job.decode(value).event_id == json.loads(value)["event_id"]


@pytest.mark.parametrize("name", PEERS)
def test_each_peer_is_pinned(name: str) -> None:
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    assert all("==" in line for line in lines if not line.startswith("#"))
    assert any(line.startswith(f"{PEERS[name].package}==") for line in lines)
