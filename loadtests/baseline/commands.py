"""Who does the job, or copies its records, and how each is started."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from loadtests.baseline.timing import Command, Servers


def _bare(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
    return [sys.executable, "-m", "loadtests.baseline.bare_loop", servers.brokers, topic_in, topic_out, str(count)]


def _worker(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
    return [sys.executable, "-m", "loadtests.baseline.worker", servers.brokers, servers.redis_url, topic_in, topic_out]


def _hand_written(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
    where = [servers.brokers, servers.redis_url, topic_in, topic_out]
    return [sys.executable, "-m", "loadtests.baseline.hand_written", *where]


def _exactly_once(servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
    return [*_worker(servers, topic_in, topic_out, count), "exactly_once"]


COMMANDS: Final[Mapping[str, Command]] = {
    "bare": _bare,
    "worker": _worker,
    "hand_written": _hand_written,
    "exactly_once": _exactly_once,
}
