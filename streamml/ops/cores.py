"""How many processor cores there are to use."""

from __future__ import annotations

import os


def cores() -> int:
    """Those that this process may run on, where the system tells; else all that there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
