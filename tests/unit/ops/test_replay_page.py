"""The page of a comparison."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from streamml.ops.replay.comparison import (
    Change,
    Comparison,
    Counts,
    Distribution,
    FieldChange,
    Flip,
    Histogram,
    Hour,
    KeyChange,
    Mover,
    Turn,
    Value,
)
from streamml.ops.replay.page import page

EVIL = '<script>alert("x")</script>'
SIDE = Distribution(3, 0, 0.5, 0.1, 0.0, 1.0, (0.0, 0.1, 0.2, 0.5, 0.7, 0.9, 1.0))
NOTHING = Distribution(0, 3, None, None, None, None, ())
RISK = FieldChange(
    "risk",
    "number",
    False,
    1,
    SIDE,
    SIDE,
    Change(3, 0.1, 0.1, 0.2, 0.3),
    Histogram((0.0, 0.5, 1.0), (1, 2), (2, 1)),
    (Mover("T/0/1", EVIL, 10**17, 0.1, 0.4),),
)
LABEL = FieldChange(
    "label", "text", False, 1, values=(Value(EVIL, 1, 2), Value(None, 1, 0)), turns=(Turn(None, EVIL, 1),)
)
FOUND = Comparison(
    EVIL,
    3,
    "live",
    ("run", "live"),
    1e-6,
    Counts(same=2, changed=1, dead_lettered=1),
    (RISK, LABEL, FieldChange("card", "text", True, 1), replace(RISK, name="empty", before=NOTHING, histogram=None)),
    {EVIL: 1},
    (Flip("risk", 0.5, 1, 2),),
    3,
    "key",
    (KeyChange(EVIL, 3, 2, 0), KeyChange(None, 1, 1, 0)),
    (Hour(0, 1, 1, 0, {"risk": (0.5, None)}), Hour(10**17, 1, 0, 0, {"risk": (None, 0.5)})),
    (EVIL,),
    1.0,
)


class Parser(HTMLParser):
    """Notes tags, and what they would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [
            value or "" for name, value in attributes if name in ("src", "href", "xlink:href", "data", "action")
        ]


@pytest.mark.parametrize("failed", [[], [f"changed > 2%: {EVIL}"]])
def test_nothing_from_outside_runs_or_is_loaded(failed: list[str]) -> None:
    parser = Parser()
    text = page(FOUND, failed)
    parser.feed(text)
    assert not {"script", "link", "iframe", "img", "object"} & set(parser.tags)
    assert [one for one in parser.loaded if not one.startswith("#")] == []
    assert re.findall(r"url\((?!#|\"#)|@import", text) == []


def test_every_plot_is_whole_and_every_number_is_told() -> None:
    text = page(FOUND)
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == 3
    for plot in plots:
        ElementTree.fromstring(plot)
    for told in ("newly dead-lettered", "T/0/1", "The field is secret", "25.00 %"):
        assert told in text


def test_a_comparison_of_nothing_has_a_page() -> None:
    empty = replace(FOUND, counts=Counts(), fields=(), hours=(), keys=(), flips=(), letters={}, notes=())
    assert "There are no rows." in page(empty)
