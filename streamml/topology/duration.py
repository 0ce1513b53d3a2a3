"""Durations as people write them: ``"50ms"``, ``"36h"``."""

from __future__ import annotations

import re
from typing import Final

_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SPELLING: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def seconds(spelling: str | float) -> float:
    """Seconds of a duration such as ``"50ms"``, ``"1.5h"``, ``"7d"``; a number is seconds already.

    Raises:
        ValueError: the spelling is no duration.
    """
    if isinstance(spelling, (int, float)):
        return float(spelling)
    found = _SPELLING.fullmatch(spelling) if isinstance(spelling, str) else None
    if found is None or found[2] not in _SECONDS:
        raise ValueError(
            f"{spelling!r} is no duration; write a number and one of {', '.join(_SECONDS)}, as in '50ms' or '36h'."
        )
    return float(found[1]) * _SECONDS[found[2]]
