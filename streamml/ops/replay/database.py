"""A DuckDB database in a folder of its own that is gone with the process that made it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from streamml.errors import ConfigError, FatalError

_PREFIX: Final = "streamml-compare-"
_LOCK: Final = "lock"
MEMORY_MB: Final = 1024


@contextlib.contextmanager
def scratch_database(memory_mb: int = MEMORY_MB) -> Iterator[Any]:
    """A connection to a database on disk, deleted at the end. Those that killed processes left behind are deleted too.

    Args:
        memory_mb: DuckDB's own; what does not fit goes to disk.

    Raises:
        ConfigError: DuckDB is not installed.
        FatalError: there is no room on the disk, or in ``memory_mb``.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ConfigError("Comparing replays needs DuckDB; install it by `pip install 'streamml[replay]'`.") from error
    root = Path(tempfile.gettempdir())
    _sweep(root)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        options: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory_mb}MB",
            "temp_directory": str(folder / "spilled"),
            "threads": min(4, os.cpu_count() or 1),
            "preserve_insertion_order": False,
            # Nothing is fetched from anywhere, or read but what is handed over.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        try:
            connection = duckdb.connect(str(folder / "rows.duckdb"), config=options)
            try:
                yield connection
            except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
                raise FatalError(
                    f"The comparison could not be kept in {root}: {error}. It needs room for both sides; name another folder by "
                    "TMPDIR, or make room, and do it again."
                ) from error
            finally:
                connection.close()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Delete folders whose process is gone: a lock ends with it, whatever ended it."""
    for folder in root.glob(f"{_PREFIX}*"):
        # One that is being made has no lock yet, and somebody else's cannot be opened.
        with contextlib.suppress(OSError), (folder / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
