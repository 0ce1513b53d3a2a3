"""A worker as a process of its own, for tests that kill it: ``python -m tests.integration.worker_process SERVERS JOB GUARANTEE``."""

from __future__ import annotations

import signal
import sys

from tests.integration.test_worker import Job


def main() -> None:
    """Work until SIGTERM."""
    servers, name, guarantee = sys.argv[1:4]
    worker = Job(servers, name, exactly_once=guarantee == "exactly_once").worker(identity="one")
    signal.signal(signal.SIGTERM, lambda number, frame: worker.request_stop())
    worker.run()


if __name__ == "__main__":
    main()
