"""The watchdog of the features app, in virtual time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from streamml.errors import SourceUnavailable
from topologies.flight_delay.recent_watch import Watch


@dataclass
class Broker:
    """What a watch sees, and when."""

    position: int | None = 0
    group: int = 0
    ends: int = 0
    markers: set[int] = field(default_factory=set)
    away: bool = False
    now: float = 0.0

    def committed(self) -> int:
        return self.group

    def end(self) -> int:
        if self.away:
            raise SourceUnavailable("The broker did not answer.")
        return self.ends

    def between(self, start: int, end: int) -> Iterable[int]:
        return (at for at in range(start, end) if at not in self.markers)


def watched(broker: Broker, patience_s: float = 60.0) -> Watch:
    return Watch(lambda: broker.position, broker, patience_s, lambda: broker.now)


def seconds_alive(broker: Broker, at_most: int) -> int:
    """How long a broker that does not change finds the process alive."""
    watch, begun = watched(broker), int(broker.now)
    while watch.live().ok and broker.now < begun + at_most:
        broker.now += 1
    return int(broker.now) - begun


def test_arrivals_that_nobody_follows_end_the_process_in_time() -> None:
    """L2: lag without progress."""
    assert seconds_alive(Broker(position=10, ends=11), 300) == 61


def test_without_arrivals_it_waits_for_ever() -> None:
    assert seconds_alive(Broker(position=10, ends=10), 3000) == 3000


def test_progress_of_one_record_is_progress() -> None:
    broker = Broker(ends=1000)
    watch = watched(broker)
    for _ in range(500):
        broker.now += 59
        broker.position = (broker.position or 0) + 1
        assert watch.live().ok


def test_who_has_not_the_partition_is_judged_by_the_group() -> None:
    broker = Broker(position=None, group=5, ends=100)
    watch = watched(broker)
    for _ in range(90):
        broker.now += 10
        broker.group += 1
        assert watch.live().ok
    broker.now += 61
    verdict = watch.live()
    assert not verdict.ok
    assert "5 records" in verdict.reason


def test_markers_of_transactions_are_no_lag() -> None:
    broker = Broker(position=10, ends=12, markers={10, 11})
    assert seconds_alive(broker, 1000) == 1000


def test_records_behind_markers_are() -> None:
    broker = Broker(position=10, ends=12, markers={10, 11})
    watch = watched(broker)
    watch.live()
    broker.now += 61
    assert watch.live().ok
    broker.ends = 13
    assert watch.live().ok
    broker.now += 61
    assert not watch.live().ok


def test_a_broker_that_is_away_is_waited_for() -> None:
    assert seconds_alive(Broker(position=0, ends=5, away=True), 1000) == 1000
