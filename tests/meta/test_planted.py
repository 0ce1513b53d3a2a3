"""The planted mistakes can be planted: their texts are there once, and so are their tests. ``make mistakes`` plants them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.planted.mistake import Mistake
from tests.planted.mistakes import MISTAKES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: str(mistake.name))
def test_a_mistake_has_its_place_and_its_tests(mistake: Mistake) -> None:
    text = (ROOT / mistake.file).read_text()
    found = text.count(mistake.right)
    assert found == 1, f"{mistake.right!r} is {found} times in {mistake.file}: let the mistake be one in today's code."
    ast.parse(text.replace(mistake.right, mistake.wrong))
    for test in mistake.tests:
        file, *_, name = test.split("::")
        files = [ROOT / file, *(ROOT / file).parent.glob("*_behaviours.py")]
        named = {node.name for one in files for node in ast.walk(ast.parse(one.read_text())) if hasattr(node, "name")}
        # The one method of a state machine's test is inherited.
        assert {name, *test.split("::")[1:-1]} - {"runTest"} <= named


def test_names_of_mistakes_are_distinct() -> None:
    assert len({one.name for one in MISTAKES}) == len(MISTAKES) >= 15
