"""A worker as a process of its own, for tests that kill it: ``python -m tests.integration.worker_process SERVERS JOB``."""

from __future__ import annotations

import signal
import sys

from tests.integration.test_worker import Job


def main() -> None:
    """Work until SIGTERM."""
    worker = Job(sys.argv[1], sys.argv[2]).worker(identity="one")
    signal.signal(signal.SIGTERM, lambda number, frame: worker.request_stop())
    worker.run()


if __name__ == "__main__":
    main()
