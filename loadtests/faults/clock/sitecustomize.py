"""Python imports this in the workers of ``make chaos``: their wall clock is wrong by the seconds that a file says, while it is there."""

import os
import time
from pathlib import Path

_file = Path(os.environ["CHAOS_CLOCK_FILE"])
_time = time.time


def _wrong() -> float:
    try:
        return _time() + float(_file.read_text())
    except (OSError, ValueError):
        return _time()


time.time = _wrong
