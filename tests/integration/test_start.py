"""What a worker's start, and its waiting, take of a processor."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import psutil
import pytest

from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from tests.integration.test_command_line import Shell, load_features, wait_for

pytestmark = pytest.mark.integration

LIBRARIES: Final = "import click, confluent_kafka.admin, msgspec, numpy, onnxruntime, pydantic, redis"
IDLE_S: Final = 3.0
ATTEMPTS: Final = 4


def cpu_s(pid: int) -> float:
    """Processor seconds that a process has taken, system calls included."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def libraries_cpu_s() -> float:
    """What importing the libraries alone takes on this machine, as busy as it is; the second time, when they are compiled."""
    command = [sys.executable, "-c", LIBRARIES]
    subprocess.run(command, check=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def worker_cpu(shell: Shell, after: int) -> tuple[float, float]:
    """Processor seconds that a worker takes until so many predictions are there, and its share of one while it waits."""
    worker = shell.start("run", "payments.py")
    try:
        wait_for(shell, after)
        started = cpu_s(worker.pid)
        time.sleep(IDLE_S)
        return started, (cpu_s(worker.pid) - started) / IDLE_S
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)


def test_a_worker_takes_little_of_a_processor_to_start_and_next_to_nothing_to_wait(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    shell = Shell(tmp_path, kafka.bootstrap_servers, redis_server.url)
    shell.type("topics", "create", "payments.py")
    load_features(shell)
    found = []
    # Neighbours on the machine only ever add to what is counted: the least of several is nearest to the truth.
    for attempt in range(1, ATTEMPTS + 1):
        shell.produce(10)
        libraries = libraries_cpu_s()
        started, idle = worker_cpu(shell, 10 * attempt)
        times = started / libraries
        # Measured: 1.4 to 1.9 times, and 1 %.
        if times < 2.5 and idle < 0.05:
            return
        found.append((times, idle))
    pytest.fail(f"Times of the libraries' import to start, and shares of a processor to wait: {found}")
