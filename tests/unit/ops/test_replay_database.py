"""The database of a comparison, and that nothing of it stays behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from streamml.ops.replay.database import scratch_database

_CHILD = """
import sys, time
from streamml.cli.signals import ended_by_signals
from streamml.ops.replay.database import scratch_database
with ended_by_signals(), scratch_database(256) as connection:
    connection.execute("CREATE TABLE rows AS SELECT range AS number FROM range(1000)")
    print("made", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, here and in children."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left(folder: Path) -> list[Path]:
    return list(folder.glob("streamml-compare-*"))


def test_it_is_gone_at_the_end_and_after_a_failure(folder: Path) -> None:
    with scratch_database() as connection:
        connection.execute("CREATE TABLE rows (number BIGINT)")
        assert len(left(folder)) == 1
    assert left(folder) == []
    with pytest.raises(ZeroDivisionError), scratch_database():
        _ = 1 / 0
    assert left(folder) == []


def test_it_works_with_more_than_its_memory(folder: Path) -> None:
    with scratch_database(128) as connection:
        connection.execute("CREATE TABLE one AS SELECT range AS a, hash(range)::VARCHAR AS b FROM range(1500000)")
        found = connection.execute(
            "SELECT count(*) FROM (SELECT b, row_number() OVER (ORDER BY b) FROM one)"
        ).fetchone()
        assert found == (1_500_000,)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_what_a_process_that_was_ended_left_is_deleted_by_the_next_and_not_what_one_still_uses(
    folder: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "made\n"
            with scratch_database():
                assert len(left(folder)) == 2
            assert len(left(folder)) == 1
        finally:
            child.send_signal(number)
    assert len(left(folder)) == (number == signal.SIGKILL)
    with scratch_database():
        assert len(left(folder)) == 1


_LIMITED = """
import resource
from streamml.errors import FatalError
from streamml.ops.replay.database import scratch_database
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    with scratch_database(64) as connection:
        connection.execute("CREATE TABLE rows AS SELECT hash(range)::VARCHAR FROM range(1000000)")
except FatalError as error:
    print(error)
"""


def test_a_disk_without_room_is_told_with_what_to_do(folder: Path) -> None:
    told = subprocess.run([sys.executable, "-c", _LIMITED], check=True, capture_output=True, text=True).stdout
    assert f"could not be kept in {folder}" in told
    assert "TMPDIR" in told
    assert left(folder) == []
