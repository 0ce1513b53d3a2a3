"""Plants each mistake into a copy of the tree and runs the tests that must notice: ``make mistakes``.

Ends with 1 where a mistake survives, its text does not match once, or the tests do not pass without it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from tests.planted.mistake import Mistake
from tests.planted.mistakes import MISTAKES

ROOT = Path(__file__).parents[2]
_FAILED, _PATIENCE_S = 1, 300


@click.command()
@click.option("--only", default="", help="Plant only mistakes with these words in their name or file.")
def main(only: str) -> None:
    """Plant mistakes, one at a time, and see their tests fail."""
    chosen = [one for one in MISTAKES if only in one.name or only in one.file]
    if not chosen:
        raise click.UsageError(f"No mistake has {only!r} in its name or file.")
    with tempfile.TemporaryDirectory(prefix="streamml-mistakes-") as folder:
        tree = _copied(Path(folder))
        click.echo(f"Without a mistake: {_expect_to_pass(tree, chosen)}")
        survivors = [one.name for one in chosen if not _is_noticed(tree, one)]
    if survivors:
        click.echo(f"{len(survivors)} of {len(chosen)} mistakes survive: {'; '.join(survivors)}.", err=True)
        sys.exit(1)
    click.echo(f"All {len(chosen)} mistakes are noticed.")


def _copied(folder: Path) -> Path:
    """What git tracks, and what is new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    return folder


def _expect_to_pass(tree: Path, chosen: Sequence[Mistake]) -> str:
    """What fails anyway says nothing about a mistake."""
    where = _run(tree, [sys.executable, "-c", "import streamml; print(streamml.__file__)"]).stdout.strip()
    if not where.startswith(str(tree)):
        raise click.ClickException(f"The copy's tests would import {where}, not the copy.")
    ran = _tests(tree, sorted({test for one in chosen for test in one.tests}))
    if ran.returncode:
        raise click.ClickException(f"These tests have to pass before a mistake is planted:\n{ran.stdout[-4000:]}")
    return ran.stdout.strip().splitlines()[-1]


def _is_noticed(tree: Path, mistake: Mistake) -> bool:
    path = tree / mistake.file
    right = path.read_text()
    if right.count(mistake.right) != 1:
        click.echo(f"✗ {mistake.name}: its text is {right.count(mistake.right)} times in {mistake.file}, not once")
        return False
    path.write_text(right.replace(mistake.right, mistake.wrong))
    try:
        ran = _tests(tree, mistake.tests)
    finally:
        path.write_text(right)
    # A test that hangs is one that does not say what is wrong.
    noticed = ran.returncode == _FAILED and "from pytest-timeout" not in ran.stdout
    click.echo(f"{'✓' if noticed else '✗'} {mistake.name} ({mistake.file})")
    for test in mistake.tests:
        click.echo(f"    {test}")
    click.echo(
        f"    {_first_line(ran.stdout) if noticed else f'pytest ended with {ran.returncode}: {ran.stdout[-500:]}'}"
    )
    return noticed


def _tests(tree: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    options = ["-q", "-x", "--tb=short", "-p", "no:cacheprovider", "-p", "no:randomly", "--hypothesis-profile=planted"]
    return _run(tree, [sys.executable, "-m", "pytest", *options, *tests])


def _run(tree: Path, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # An editable installation would win over the copy in processes that tests start elsewhere.
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
    )


def _first_line(output: str) -> str:
    """What the failure says; the assertion itself where it says nothing."""
    found = re.search(r"^ {4}(\S.*)\n(?:^ +\^+\n)?^E +(\S.*)$", output, re.MULTILINE)
    if found is None:
        return output.strip().splitlines()[-1]
    return found[1] if found[2] == "AssertionError" else found[2]


if __name__ == "__main__":
    main()
