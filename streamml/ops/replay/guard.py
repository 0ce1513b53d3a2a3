"""Holds a replay back while live traffic is behind."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.adapters.kafka.probe import GroupProbe
from streamml.engine.pace import Pace
from streamml.errors import StreamMLError
from streamml.ports.source import TopicPartition
from streamml.runtime.meanwhile import meanwhile
from streamml.settings.settings import Settings

_LOG: Final = logging.getLogger("streamml.replay")
_EVERY_S: Final = 1.0
_JOIN_S: Final = 15.0


def live_lag(probe: GroupProbe, partitions: Sequence[TopicPartition]) -> int:
    """Records that the group has not settled; those of partitions that it never had do not count.

    Raises:
        SourceUnavailable: the broker does not answer.
    """
    committed = probe.committed(partitions)
    ends = probe.ends(committed)
    return sum(max(0, ends[where] - offset) for where, offset in committed.items())


@contextmanager
def held_back(settings: Settings, group: str, topics: Sequence[str], max_lag: int | None, pace: Pace) -> Iterator[None]:
    """Meanwhile ``pace`` is held as long as the group's lag is over ``max_lag``.

    Args:
        max_lag: records; ``None``: nothing is held back.
    """
    if max_lag is None:
        yield
        return
    partitions = KafkaOffsets(settings.client()).partitions(topics)
    with meanwhile(partial(_watch, settings, group, partitions, max_lag, pace), "streamml-guard", join_s=_JOIN_S):
        yield


def _watch(
    settings: Settings,
    group: str,
    partitions: Sequence[TopicPartition],
    max_lag: int,
    pace: Pace,
    ended: threading.Event,
) -> None:
    probe = GroupProbe(settings.consumer(), group)
    while not ended.is_set():
        _look(probe, partitions, group, max_lag, pace)
        ended.wait(_EVERY_S)
    probe.close()


def _look(probe: GroupProbe, partitions: Sequence[TopicPartition], group: str, max_lag: int, pace: Pace) -> None:
    try:
        lag = live_lag(probe, partitions)
    except StreamMLError as error:
        # The replay itself hears of a broker that is away.
        _LOG.debug("Asking for the lag of group %s: %s", group, error)
        return
    told = f"group {group} is {lag:,} records behind, and --max-lag is {max_lag:,}" if lag > max_lag else ""
    if bool(told) != bool(pace.held):
        _LOG.warning("%s", f"The replay waits: {told}." if told else "The replay goes on.")
    pace.held = told
