"""docs/testing.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

_PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """The page's code as one module."""
    module = ModuleType("docs_testing")
    code = "\n".join(re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL))
    exec(compile(code, str(_PAGE), "exec"), module.__dict__)
    return module


_TESTS = re.findall(r"^def (test_\w+)", _PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", _TESTS)
def test_the_examples_pass(page: ModuleType, name: str) -> None:
    getattr(page, name)()


def test_the_page_has_examples() -> None:
    assert len(_TESTS) >= 3
