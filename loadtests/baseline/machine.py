"""The machine and the versions that figures are of."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from streamml.ops.cores import cores

_PACKAGES = ("confluent-kafka", "numpy", "onnxruntime", "msgspec", "redis", "hiredis")


def conditions(events: int, rounds: int) -> dict[str, Any]:
    """For a result of so many events and rounds."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": cores(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "kafka": "Apache Kafka 4.1.1 (KRaft), embedded, on the same machine",
        "events": events,
        "rounds": rounds,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
