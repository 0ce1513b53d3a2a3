"""Each check says what to do."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from streamml.ops.doctor import bytecode


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of an installed package that was never imported, and cannot leave bytecode."""
    file = tmp_path / "heavy_library.py"
    file.write_text("answer = 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    return file


def test_packages_that_are_compiled_at_every_start_are_told_with_the_remedy(package: Path) -> None:
    found = bytecode(["heavy_library"])
    assert not found.ok
    assert not found.needed
    assert "heavy_library" in found.detail
    assert "compileall" in found.detail


def test_compiled_packages_are_in_order(package: Path) -> None:
    cached = Path(importlib.util.cache_from_source(str(package)))
    cached.parent.mkdir()
    cached.touch()
    assert bytecode(["heavy_library"]).ok


def test_packages_that_are_compiled_at_their_first_import_are_in_order(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert bytecode(["heavy_library"]).ok
