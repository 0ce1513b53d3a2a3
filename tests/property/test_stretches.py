"""Whatever the range, the gaps, the polls and the kills: what is replayed is what is in the range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamml.engine.ledger import Ledger
from streamml.engine.stretches import Stretches
from streamml.ports.source import TopicPartition
from tests.records import run_of


@dataclass(frozen=True)
class Log:
    """One partition: offsets of the records that a reader is shown, and the next one to be written.

    Between them lie compacted records, markers of transactions and aborted records.
    """

    shown: tuple[int, ...]
    end: int
    start_of_range: int
    end_of_range: int

    @property
    def in_range(self) -> set[int]:
        return {one for one in self.shown if self.start_of_range <= one < self.end_of_range}


@st.composite
def logs(draw: st.DrawFn) -> Log:
    shown = sorted(draw(st.sets(st.integers(0, 40), max_size=30)))
    end = max([0, *(one + 1 for one in shown)]) + draw(st.integers(0, 5))
    first = draw(st.integers(0, end))
    return Log(tuple(shown), end, first, draw(st.integers(first, end)))


@dataclass
class Life:
    """A process that replays, from what was committed to a kill or to the end."""

    logs: dict[TopicPartition, Log]
    committed: dict[TopicPartition, int]
    scored: list[tuple[TopicPartition, int]]

    def __post_init__(self) -> None:
        bounds = {where: (log.start_of_range, log.end_of_range) for where, log in self.logs.items()}
        self.stretches = Stretches(bounds, self.committed)
        self.done_before = dict(self.committed)
        self.next = dict(self.stretches.starts)
        self.ledgers = {where: Ledger(start) for where, start in self.next.items()}
        self.waiting: list[tuple[TopicPartition, range]] = []

    def poll(self, where: TopicPartition, rows: int) -> None:
        """The client gives what comes next, or says that the partition ends; it may have fetched more than is wanted."""
        if where not in self.stretches.open:
            return
        log = self.logs[where]
        offsets = [one for one in log.shown if one >= self.next[where]][:rows]
        if offsets:
            run = self.stretches.within(run_of(offsets, where))
            self.next[where] = offsets[-1] + 1
            assert all(run.offsets >= self.done_before.get(where, 0))
            if len(run):
                first = self.ledgers[where].open(run)
                self.waiting.append((where, range(first, first + len(run))))
                self.scored += [(where, int(one)) for one in run.offsets]
        else:
            assert self.stretches.reached(where, log.end)
        for ended, end in self.stretches.ended().items():
            self.ledgers[ended].skip_to(end)

    def settle_and_commit(self, which: int) -> None:
        if self.waiting:
            where, ordinals = self.waiting.pop(which % len(self.waiting))
            self.ledgers[where].settle(np.array(ordinals))
        self.committed.update({where: ledger.position for where, ledger in self.ledgers.items()})


@given(
    st.lists(logs(), min_size=1, max_size=3),
    st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 12), st.integers(0, 9)), max_size=15), max_size=4),
)
def test_what_is_replayed_is_what_is_in_the_range_and_it_ends(
    partitions: list[Log], lives: list[list[tuple[int, int, int]]]
) -> None:
    """D3.7."""
    by_place = {TopicPartition("events", number): log for number, log in enumerate(partitions)}
    places = list(by_place)
    committed: dict[TopicPartition, int] = {}
    scored: list[tuple[TopicPartition, int]] = []
    for schedule in lives:
        life = Life(by_place, committed, scored)
        for number, rows, which in schedule:
            life.poll(places[number % len(places)], rows)
            if which % 2:
                life.settle_and_commit(which)
    last = Life(by_place, committed, scored)
    for _ in range(200):
        for where in places:
            last.poll(where, 5)
        last.settle_and_commit(0)
    assert set(scored) == {(where, one) for where, log in by_place.items() for one in log.in_range}
    assert committed == {where: log.end_of_range for where, log in by_place.items()}
    assert last.stretches.open == {}
