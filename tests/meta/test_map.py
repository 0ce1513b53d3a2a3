"""ARCHITECTURE.md is true: the file map names what is there, and everything that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import streamml

ROOT = Path(__file__).parents[2]
MAP = (ROOT / "ARCHITECTURE.md").read_text()
PLACES = re.findall(r"^\| `([^`]+)` \|", MAP, re.MULTILINE)


def test_every_place_on_the_map_is_there() -> None:
    assert [place for place in PLACES if not (ROOT / place).exists()] == []


def test_every_package_is_on_the_map() -> None:
    packages = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "streamml").rglob("__init__.py")}
    leaves = {one for one in packages if one not in ("streamml", "streamml/adapters")}
    assert leaves - {place.rstrip("/") for place in PLACES} == set()


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert [one for one in linked if not (ROOT / one).exists()] == []


def test_the_journey_names_modules_that_are_there() -> None:
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", MAP))
    missing = {one for one in named if not (ROOT / "streamml" / one).exists() and not (ROOT / one).exists()}
    assert missing == set()


def test_public_names_load_and_have_documentation() -> None:
    for name in streamml.__all__:
        assert getattr(streamml, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        streamml.nothing  # noqa: B018  the access is the point


def test_no_module_is_called_by_what_says_nothing() -> None:
    banned = {"utils", "helpers", "common", "core", "base", "misc", "manager", "types"}
    assert [path for path in (ROOT / "streamml").rglob("*.py") if path.stem in banned] == []


def test_no_pickle_is_loaded_anywhere() -> None:
    """L5.1, L5.3: but for the offline conversion of a trained model."""
    loads = re.compile(r"\b(pickle|cloudpickle|joblib|torch\.load|allow_pickle=True|marshal)\b")
    found = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in (ROOT / "streamml").rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"^\s*(import|from)\s", line) and loads.search(line)
    ]
    assert found == ["streamml/adapters/models/conversion.py:     import joblib"]
