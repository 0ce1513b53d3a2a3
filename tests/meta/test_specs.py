"""docs/specs is held by tests: each id and each sentence is named by one that is collected."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "docs" / "specs").glob("*.md") if path.name != "README.md")
IDS = {
    *(f"D{number}" for number in range(1, 8)),
    *(f"B{number}" for number in range(1, 4)),
    *(f"M{number}" for number in range(1, 7)),
    *(f"F{number}" for number in range(1, 8)),
    *(f"E{number}" for number in range(1, 6)),
    *(f"L{number}" for number in range(1, 6)),
}
_SENTENCE = re.compile(r"^- \*\*([A-Z]\d\.\d+)\*\* (.*?)(?=^- |^#|\Z)", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"\b([A-Z]\d)(\.\d+)?\b")
_WORDS = re.compile(r"\b(MUST|MUST NOT|SHOULD|MAY)\b")


def sentences(page: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The sentences of a page by number: those that hold, and those that do not yet."""
    holds, _, not_yet = page.read_text().partition("## Not yet")
    return dict(_SENTENCE.findall(holds)), dict(_SENTENCE.findall(not_yet))


HOLDS = {number: text for page in PAGES for number, text in sentences(page)[0].items()}
NOT_YET = {number: text for page in PAGES for number, text in sentences(page)[1].items()}


def _tests(path: Path) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Test functions and state machines of a file; of one with behaviours only those that a test file has collected."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield from _if_test(node)
        elif isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith(".TestCase") for base in node.bases):
            yield node
        elif isinstance(node, ast.ClassDef) and (path.name.startswith("test_") or node.name in _inherited()):
            for one in node.body:
                yield from _if_test(one)


def _if_test(node: ast.stmt) -> Iterator[ast.FunctionDef]:
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
        yield node


@cache
def _inherited() -> set[str]:
    bases = re.findall(r"^class Test\w*\((?:\w+\.)*(\w+)\)", _all_tests(), re.MULTILINE)
    return set(bases)


def _all_tests() -> str:
    return "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


def claims() -> dict[str, list[str]]:
    """Ids and numbers, and the tests that name each in their docstring, ids in their names too."""
    found: dict[str, list[str]] = {}
    files = [
        path for path in (ROOT / "tests").rglob("*.py") if path.name.startswith("test_") or "behaviours" in path.name
    ]
    for path in sorted(files):
        for test in _tests(path):
            words = {word.upper() for word in test.name.split("_")}
            for id, rest in _NAMED.findall(ast.get_docstring(test) or ""):
                words |= {id, id + rest}
            for word in words & (IDS | HOLDS.keys() | NOT_YET.keys()):
                found.setdefault(word, []).append(f"{path.relative_to(ROOT)}::{test.name}")
    return found


CLAIMS = claims()


def test_the_pages_have_every_id() -> None:
    assert {number.split(".")[0] for number in HOLDS | NOT_YET} == IDS
    listed = (ROOT / "docs" / "specs" / "README.md").read_text()
    assert {id for id, _ in _NAMED.findall(listed)} == IDS
    assert all(f"({page.name})" in listed for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_a_page_has_numbered_sentences_that_oblige(page: Path) -> None:
    holds, not_yet = sentences(page)
    numbers = re.findall(r"\*\*([A-Z]\d\.\d+)\*\*", page.read_text())
    assert sorted(numbers) == sorted([*holds, *not_yet])
    assert [number for number, text in (holds | not_yet).items() if not _WORDS.search(text)] == []
    headings = re.findall(r"^## ([A-Z]\d) ", page.read_text(), re.MULTILINE)
    assert {number.split(".")[0] for number in holds} == set(headings)


def test_every_sentence_has_one_number_of_an_unbroken_row() -> None:
    numbers = [number for page in PAGES for one in sentences(page) for number in one]
    assert len(numbers) == len(set(numbers))
    for id in IDS:
        mine = sorted(int(number.split(".")[1]) for number in numbers if number.split(".")[0] == id)
        assert mine == list(range(1, len(mine) + 1)), id


@pytest.mark.parametrize("number", sorted(HOLDS))
def test_every_sentence_is_named_by_a_test(number: str) -> None:
    assert CLAIMS.get(number), f"No test names {number}: {HOLDS[number]}"
    assert CLAIMS.get(number.split(".", maxsplit=1)[0])


def test_what_is_not_built_is_claimed_by_no_test() -> None:
    nothing_of_it = IDS - {number.split(".")[0] for number in HOLDS}
    assert {name: CLAIMS[name] for name in NOT_YET.keys() | nothing_of_it if name in CLAIMS} == {}


def test_what_tests_name_is_on_a_page() -> None:
    named = {
        id + rest
        for path in (ROOT / "tests").rglob("*.py")
        for test in _tests(path)
        for id, rest in re.findall(r"\b([DBMFEL]\d)(\.\d+)\b", ast.get_docstring(test) or "")
    }
    assert named <= HOLDS.keys()
