"""Fails a test in which something went wrong and nobody was told.

Exceptions that end a thread, or that Python can only print ("Exception ignored in …"), and coroutines that nobody awaited are
warnings of pytest, and warnings are errors here. What is left is code that catches an exception and only logs it: a record at
ERROR or above, or one with an exception in it, fails the test unless the test says that it provokes it:

    @pytest.mark.logs_errors("Unexpected ValueError")
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

# How librdkafka's own lines reach our logger. It repeats every lost connection at ERROR, which is no exception of anybody.
_CLIENTS_LINE = "%s [%s] %s"


@pytest.fixture(autouse=True)
def nothing_is_swallowed(request: pytest.FixtureRequest) -> Iterator[None]:
    """See the module."""
    # Not a handler: the command line replaces those when a test calls it.
    make, found = logging.getLogRecordFactory(), list[logging.LogRecord]()

    def note(*args: Any, **named: Any) -> logging.LogRecord:
        record = make(*args, **named)
        if record.levelno >= logging.ERROR or record.exc_info not in (None, (None, None, None)):
            found.append(record)
        return record

    logging.setLogRecordFactory(note)
    yield
    logging.setLogRecordFactory(make)
    marks = request.node.iter_markers("logs_errors")
    expected = {pattern: re.compile(pattern) for mark in marks for pattern in mark.args}
    told = [_text(record) for record in found if record.msg != _CLIENTS_LINE]
    surprises = [text for text in told if not any(one.search(text) for one in expected.values())]
    if surprises:
        pytest.fail("Errors were logged and not raised:\n" + "\n".join(surprises), pytrace=False)
    unheard = [pattern for pattern, one in expected.items() if not any(map(one.search, told))]
    if unheard:
        pytest.fail(f"These errors were expected in the log and did not come: {', '.join(unheard)}", pytrace=False)


def assert_nothing_swallowed(said: str) -> None:
    """The same of another process, by what it wrote to stderr."""
    found = re.search(r"Traceback \(most recent|Exception ignored|was never awaited|--- Logging error ---", said)
    assert found is None, said


def _text(record: logging.LogRecord) -> str:
    raised = record.exc_info[1] if record.exc_info else None
    cause = f" ({type(raised).__name__}: {raised})" if raised is not None else ""
    return f"{record.levelname} {record.name}: {record.getMessage()}{cause}"
