"""A worker process for `test_memory`: its model stands still until a line comes in."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np

from streamml.batch.column import Columns
from streamml.engine.engine import Engine
from tests.integration.test_worker import Job


def peak_mb() -> int:
    """Most memory that this process ever had."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1000


def tell(engine: Engine) -> None:
    sys.stdout.write(f"{peak_mb()} {engine.gauge.most_rows}\n")
    sys.stdout.flush()


def main(servers: str, name: str, records: int) -> None:
    """Tells its peak before the first record, when it has stood still for a while, and when all is scored."""
    go_on = threading.Event()
    asked = 0

    def model(inputs: Columns) -> Columns:
        go_on.wait()
        return {"score": np.asarray(inputs["amount"])}

    def enough(engine: Engine) -> bool:
        nonlocal asked
        # It is asked ten times a second, so this is past the time at which the source pauses and its queue is full.
        asked += 0 if engine.gauge.room else 1
        if asked == 25:
            asked += 1
            tell(engine)
            threading.Thread(target=lambda: go_on.set() if sys.stdin.readline() else None, daemon=True).start()
        return engine.statistics.predictions == records

    worker = Job(servers, name).worker(model, budget_bytes=16_000_000, max_record_bytes=10_000_000)
    tell(worker._engine)
    worker.run(until=enough)
    tell(worker._engine)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
