"""Keeps the fast features of ``make chaos`` fresh, in a process that is killed: ``python -m loadtests.faults.writer REDIS_URL NOTES``.

Each write is noted before it begins and when it is acknowledged, a line each: group, event time (µs), and when (0: it begins).
"""

from __future__ import annotations

import os
import sys
import threading
import time

from loadtests.faults.fast import GROUPS, accounts_of, rows
from loadtests.faults.topology import recent
from streamml.features import FeatureWriter

_REST_S = 0.25


def write_for_ever(url: str, notes: int) -> None:
    """Write group after group; ``notes`` is a file that is appended to, so that a kill leaves whole lines."""
    members = [accounts_of(group) for group in range(GROUPS)]
    tick = turn = 0
    with FeatureWriter(recent, url=url, writer="chaos", timeout="2s", keep="1h") as writer:
        while True:
            group, tick = turn % GROUPS, max(tick + 1, time.time_ns() // 1000)
            os.write(notes, b"%d %d 0\n" % (group, tick))
            writer.write(rows(members[group], tick))
            os.write(notes, b"%d %d %d\n" % (group, tick, time.time_ns() // 1000))
            turn += 1
            # The first round is what a run waits for.
            threading.Event().wait(_REST_S if turn >= GROUPS else 0)


if __name__ == "__main__":
    write_for_ever(sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND))
