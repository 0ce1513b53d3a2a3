"""Any mix of events, at any time, through any faults: each ends as it has to, once, in order."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streamml.settings.settings import WorkerSettings
from streamml.testing import TopologyDriver
from tests.testing.shop import driver, payment

PARTITIONS = 2
EVENTS: dict[str, tuple[Any, str]] = {
    "good": (payment(1), "prediction"),
    "unknown account": (payment(1, account="bob"), "prediction"),
    "not json": (b"\xff{", "dead letter"),
    "wrong type": (b'{"id": "p", "account": 7}', "dead letter"),
    "failed by a step": (payment(1, amount=-1.0), "dead letter"),
    "refused by the model": (payment(1, amount=13.0), "dead letter"),
    "filtered": (payment(1, amount=0.0), "filtered"),
    "tombstone": (None, "filtered"),
}
FAULTS = ["broker away", "broker back", "store away", "store back", "time", "much time"]

moves = st.lists(
    st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(0, PARTITIONS - 1))
    | st.tuples(st.sampled_from(FAULTS), st.just(0)),
    max_size=60,
)


class Story:
    """What was sent, and what has to become of it."""

    def __init__(self) -> None:
        self.expected: dict[str, str] = {}
        self.run: TopologyDriver = driver(
            partitions=PARTITIONS,
            service_time={"fraud": lambda rows: 0.003 * rows},
            settings=WorkerSettings(max_in_flight_rows=10, max_poll_rows=4),
        )

    def play(self, moves: list[tuple[str, int]]) -> None:
        for what, partition in moves:
            if what in EVENTS:
                event, end = EVENTS[what]
                self.expected[self.run.send(event, partition=partition)] = end
            else:
                self.happen(what)
        self.run.broker.recover()
        self.run.store.recover()
        self.run.settle()

    def happen(self, what: str) -> None:
        match what:
            case "broker away":
                self.run.broker.fail("The broker is away.")
            case "broker back":
                self.run.broker.recover()
            case "store away":
                self.run.store.fail("The store is away.")
            case "store back":
                self.run.store.recover()
            case "time":
                self.run.advance("2ms")
            case "much time":
                self.run.advance("300ms")
            case "crash":
                self.run.crash()

    def ends(self) -> list[tuple[str, str]]:
        """Id and end of everything that was written."""
        letters = [(letter.id, "dead letter") for letter in self.run.dead_letters()]
        return [*((one.id, "prediction") for one in self.run.predictions()), *letters]

    def written(self) -> dict[str, str]:
        """What should have been written."""
        return {id: end for id, end in self.expected.items() if end != "filtered"}

    def check_order(self) -> None:
        """First occurrences of predictions, and of dead letters, are in the order of their partition."""
        for ids in ([one.id for one in self.run.predictions()], [letter.id for letter in self.run.dead_letters()]):
            by_partition: dict[str, list[int]] = defaultdict(list)
            for id in dict.fromkeys(ids):
                _, partition, offset = id.split("/")
                by_partition[partition].append(int(offset))
            assert all(offsets == sorted(offsets) for offsets in by_partition.values())

    def check_commits(self) -> None:
        sent = Counter(int(id.split("/")[1]) for id in self.expected)
        assert {where.partition: offset for where, offset in self.run.commits().items()} == {
            partition: sent[partition] for partition in range(PARTITIONS)
        }


@settings(max_examples=150, deadline=None)
@given(moves)
def test_d1_d3_d4_everything_ends_once_in_order_and_is_committed(moves: list[tuple[str, int]]) -> None:
    """D1.2, D4.1."""
    story = Story()
    story.play(moves)
    assert sorted(story.ends()) == sorted(story.written().items())
    story.check_order()
    story.check_commits()
    counted = story.run.statistics
    assert counted.polled == len(moves) - sum(what in FAULTS for what, _ in moves)
    assert counted.polled == counted.predictions + counted.dead_letters + counted.filtered


@settings(max_examples=150, deadline=None)
@given(moves, st.lists(st.integers(0, 60), max_size=3))
def test_d1_d3_crashes_lose_nothing_and_repeat_only_equal_ids(moves: list[tuple[str, int]], crashes: list[int]) -> None:
    """D1.2, D3.1, D4.1."""
    story = Story()
    for place in crashes:
        moves = [*moves[:place], ("crash", 0), *moves[place:]]
    story.play(moves)
    assert dict(story.ends()) == story.written()
    assert max(Counter(story.ends()).values(), default=1) <= 1 + len(crashes)
    story.check_order()
    story.check_commits()
