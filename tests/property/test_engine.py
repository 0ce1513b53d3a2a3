"""The engine, at least once, in any order of events: nothing lost or out of order, commits only behind results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from hypothesis.stateful import precondition, rule

from streamml.engine.assignment import SlotNames
from streamml.engine.backpressure import Budget
from streamml.engine.batcher import BatchPolicy
from streamml.engine.dead_letters import DeadLetterLimit
from streamml.engine.engine import Engine, EngineConfig
from streamml.engine.events import Action, Assigned, Commit, CommitFailed, Gate, Polled, Send
from streamml.ports.sink import Delivered
from streamml.ports.source import Positions
from tests.property.surroundings import POLL, Log, Row, Surroundings, some
from tests.records import PARTITION, run_of

CONFIG = EngineConfig(
    stages=(BatchPolicy(8), BatchPolicy(5)),
    prediction_topic="predictions",
    dead_letter_topic="dlq",
    dead_letter_limit=DeadLetterLimit(1.0, 10**9),
    budget=Budget(rows=40, size_bytes=10_000),
    commit_interval_s=0.2,
    max_outbound_rows=20,
)


class AtLeastOnce(Surroundings):
    """A sink whose records are seen when the broker has written them, and commits that may fail."""

    exactly_once = False

    def __init__(self) -> None:
        super().__init__()
        self.answered: set[Row] = set()
        self.forget()

    def forget(self) -> None:
        self.sent: deque[tuple[Delivered, list[tuple[str, Row]]]] = deque()
        self.written: list[tuple[Delivered, list[tuple[str, Row]]]] = []
        self.asked: deque[dict[int, int]] = deque()

    def obey(self, action: Action) -> None:
        match action:
            case Send():
                rows, refusals = self.going(action)
                self.sent.append((Delivered(action.token, refusals), rows))
            case Commit():
                self.asked.append(self.checked(action.positions))
            case _:
                super().obey(action)

    def checked(self, positions: Positions) -> dict[int, int]:
        """Nothing is committed before its result, or back, or of a partition that is somebody else's (D1, D6)."""
        for where, position in positions.items():
            log = self.logs[where.partition]
            assert log.slot is not None
            assert log.said <= position <= log.end
            unanswered = self.due(log, log.said, position).keys() - self.answered
            assert not unanswered, f"{position} was committed before {min(unanswered)} had its result"
            log.said = position
        return {where.partition: position for where, position in positions.items()}

    def is_answered(self, row: Row) -> bool:
        return row in self.answered

    def fence(self, logs: Sequence[Log]) -> None:
        gone = {log.where.partition for log in logs}
        self.asked = deque({to: at for to, at in positions.items() if to not in gone} for positions in self.asked)

    def commit(self, positions: Positions) -> None:
        self.asked.append(self.checked(positions))
        while self.asked:
            self.a_commit_succeeds()

    def work_elsewhere(self, log: Log, rows: list[tuple[str, Row]], position: int) -> None:
        self.seen += rows
        self.answered.update(row for _, row in rows)
        log.committed = position

    def drop(self, some: int) -> None:
        for _ in range(some % (len(self.sent) + 1)):
            self.the_broker_writes()
        for _ in range(some % (len(self.asked) + 1)):
            self.a_commit_succeeds()
        self.forget()

    def answers(self) -> list[Callable[[], None]]:
        acknowledged = [partial(self.the_broker_acknowledges, which) for which in range(len(self.written))]
        written = [self.the_broker_writes] * bool(self.sent)
        committed = [self.a_commit_succeeds, self.a_commit_fails] * bool(self.asked)
        return [*super().answers(), *acknowledged, *written, *committed]

    @precondition(lambda self: self.sent)
    @rule()
    def the_broker_writes(self) -> None:
        self.seen += self.sent[0][1]
        self.written.append(self.sent.popleft())

    @precondition(lambda self: self.written)
    @rule(which=some)
    def the_broker_acknowledges(self, which: int) -> None:
        delivered, rows = self.written.pop(which % len(self.written))
        self.answered.update(row for _, row in rows)
        self.tell(delivered)

    @precondition(lambda self: self.asked)
    @rule()
    def a_commit_succeeds(self) -> None:
        for partition, position in self.asked.popleft().items():
            self.logs[partition].committed = position

    @precondition(lambda self: self.asked)
    @rule()
    def a_commit_fails(self) -> None:
        partitions = self.asked.popleft()
        self.tell(CommitFailed(tuple(self.logs[one].where for one in partitions)))


class TestD1D4D6AtLeastOnce(AtLeastOnce.TestCase):  # type: ignore[misc, name-defined]
    """D1, D4, D6: whatever happens in whatever order, in the end everything has ended, in order, and is committed."""


def test_b2_the_budget_bounds_what_is_in_flight_exactly() -> None:
    engine = Engine(CONFIG, SlotNames())
    engine.handle(Assigned({PARTITION: 0}), 0.0)
    polled = 0
    closed = False
    while not closed:
        actions = engine.handle(Polled([run_of(list(range(polled, polled + POLL)))]), 1.0)
        polled += POLL
        closed = any(isinstance(action, Gate) for action in actions)
    assert engine.gauge.rows == polled == 48
