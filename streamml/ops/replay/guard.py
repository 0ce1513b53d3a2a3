"""Holds a replay back while live traffic is behind."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.engine.pace import Pace
from streamml.errors import StreamMLError
from streamml.settings.settings import Settings

_LOG: Final = logging.getLogger("streamml.replay")
_EVERY_S: Final = 1.0


def live_lag(offsets: KafkaOffsets, group: str, topics: Sequence[str]) -> int:
    """Records of the topics that the group has not settled; those of partitions that it never had do not count.

    Raises:
        SourceUnavailable: the broker does not answer.
    """
    committed = offsets.committed(group, offsets.partitions(topics))
    bounds = offsets.bounds(committed, settled=True)
    return sum(max(0, bounds[where][1] - one.offset) for where, one in committed.items())


@contextmanager
def held_back(settings: Settings, group: str, topics: Sequence[str], max_lag: int | None, pace: Pace) -> Iterator[None]:
    """Meanwhile ``pace`` is held as long as the group's lag is over ``max_lag``.

    Args:
        max_lag: records; ``None``: nothing is held back.
    """
    if max_lag is None:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(settings, group, topics, max_lag, pace, ended), name="streamml-guard", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=15.0)


def _watch(
    settings: Settings, group: str, topics: Sequence[str], max_lag: int, pace: Pace, ended: threading.Event
) -> None:
    offsets = KafkaOffsets(settings.client())
    while True:
        try:
            lag = live_lag(offsets, group, topics)
            told = f"group {group} is {lag:,} records behind, and --max-lag is {max_lag:,}" if lag > max_lag else ""
            if bool(told) != bool(pace.held):
                _LOG.warning("%s", f"The replay waits: {told}." if told else "The replay goes on.")
            pace.held = told
        except StreamMLError as error:
            # The replay itself hears of a broker that is away.
            _LOG.debug("Asking for the lag of group %s: %s", group, error)
        if ended.wait(_EVERY_S):
            return
