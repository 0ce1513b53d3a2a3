"""Nothing is swallowed: not in a test, whatever the way, and not by a handler without a reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PLANTED = """
import asyncio, gc, logging, sys, threading
import pytest

LOG = logging.getLogger("streamml.worker")

def swallow(say):
    try:
        raise ValueError("lost")
    except ValueError:
        say()

def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

def test_an_exception_that_ends_a_thread():
    in_thread(lambda: 1 / 0)

def test_an_exit_that_ends_a_thread():
    in_thread(lambda: sys.exit(1))

def test_an_exception_that_is_ignored():
    class Broken:
        def __del__(self):
            raise ValueError("lost")
    Broken()

def test_a_coroutine_that_nobody_awaits():
    async def work(): ...
    work()
    gc.collect()

def test_a_task_that_nobody_asks():
    async def fail():
        raise ValueError("lost")
    async def work():
        asyncio.ensure_future(fail())
        await asyncio.sleep(0)
    asyncio.run(work())
    gc.collect()

def test_an_exception_that_is_logged():
    swallow(lambda: LOG.exception("oh"))

def test_an_exception_that_is_logged_as_less():
    swallow(lambda: LOG.warning("oh", exc_info=True))

def test_an_error_that_is_logged_by_a_thread():
    in_thread(lambda: LOG.error("oh"))

def test_a_log_line_that_cannot_be_written():
    LOG.warning("%d", "one")

@pytest.mark.logs_errors("something else")
def test_another_error_than_the_expected():
    LOG.error("oh")

@pytest.mark.logs_errors("oh")
def test_an_expected_error_that_does_not_come():
    pass

@pytest.mark.logs_errors("oh .ValueError: lost.")
def test_good_an_expected_error():
    swallow(lambda: LOG.exception("oh"))

def test_good_a_warning_and_a_line_of_the_client():
    LOG.warning("oh")
    logging.getLogger("streamml.kafka").error("%s [%s] %s", "FAIL", "rdkafka#1", "Connection refused")
"""


def test_whatever_is_swallowed_fails_its_test(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    planted = pytester.makepyfile(test_planted=PLANTED)
    names = [line.removeprefix("def ").split("(")[0] for line in PLANTED.splitlines() if line.startswith("def test_")]
    options = ("-p", "tests.swallowed", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "-v", "-rN")
    for name in names:
        assert names.count(name) == 1
    result = pytester.runpytest_subprocess(*options, f"--rootdir={pytester.path}", str(planted))
    output = result.stdout.str()
    bad = [name for name in names if f"::{name} FAILED" not in output and f"::{name} ERROR" not in output]
    assert bad == [name for name in names if name.startswith("test_good_")]


def test_every_broad_handler_raises_or_says_why_not() -> None:
    """What catches everything, and what only passes, ends by raising or has the reason in a comment."""
    silent = [where for path in sorted((ROOT / "streamml").rglob("*.py")) for where in _silent(path)]
    assert silent == []


@pytest.mark.parametrize(
    "handler",
    [
        "except Exception:\n    x = 1",
        "except BaseException as error:\n    stop(error)",
        "except:\n    x = 1",
        "except (KeyError, Exception):\n    x = 1",
        "except KeyError:\n    pass",
        "except Exception:  # noqa: BLE001\n    x = 1",
    ],
)
def test_a_handler_without_a_reason_is_found(handler: str, tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    path.write_text(f"try:\n    work()\n{handler}\n")
    assert [*_silent(path, tmp_path)] == ["planted.py:3"]
    path.write_text(f"try:\n    work()\n{handler}  # The caller asks again.\n")
    assert [*_silent(path, tmp_path)] == []
    path.write_text(f"try:\n    work()\n{handler}\n    raise\n")
    assert [*_silent(path, tmp_path)] == []


def _silent(path: Path, root: Path = ROOT) -> Iterator[str]:
    """Handlers of a file that may swallow and do not say why; suppressions among them."""
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            passes = all(isinstance(one, (ast.Pass, ast.Continue)) for one in node.body)
            concerned = (_is_broad(node.type) or passes) and not isinstance(node.body[-1], ast.Raise)
            first, last = node.lineno, node.body[0].end_lineno or node.lineno
        elif isinstance(node, ast.With):
            concerned = any("suppress(" in ast.unparse(item.context_expr) for item in node.items)
            first, last = node.lineno - 1, node.body[0].lineno
        else:
            continue
        if concerned and not any(map(_reason, lines[first - 1 : last])):
            yield f"{path.relative_to(root)}:{node.lineno}"


def _is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(map(_is_broad, caught.elts))
    return caught is None or ast.unparse(caught) in ("Exception", "BaseException")


def _reason(line: str) -> bool:
    """Whether there are words in the line's comment, besides what it says to a linter."""
    _, _, comment = line.partition("#")
    return len(comment.replace("noqa: BLE001", "").strip(" #")) > 0
