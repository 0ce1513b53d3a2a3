"""The engine in transactions, in any order of events: every record ends once for whoever reads what was committed (D2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from streamml.engine.events import AbortTransaction, Action, CommitTransaction, Send
from streamml.ports.sink import Delivered, TransactionEnded
from streamml.ports.source import Positions
from tests.property.surroundings import FATES, Log, Row, Surroundings, some


class ExactlyOnce(Surroundings):
    """A sink with transactions; what is in them is seen, and their positions count, when they are committed."""

    exactly_once = True

    def __init__(self) -> None:
        super().__init__()
        self.answered: set[Row] = set()
        self.forget()

    def forget(self) -> None:
        self.open: list[tuple[str, Row]] = []
        self.reports: list[Delivered] = []
        self.spoiled = False
        self.ending: CommitTransaction | AbortTransaction | None = None
        self.fenced = False
        self.committed: bool | None = None

    def obey(self, action: Action) -> None:
        match action:
            case Send():
                assert self.ending is None, "Between two transactions nothing is sent."
                rows, refusals = self.going(action)
                self.open += rows
                self.reports.append(Delivered(action.token, refusals))
                self.spoiled = self.spoiled or bool(refusals)
            case CommitTransaction() | AbortTransaction():
                assert self.ending is None
                self.ending, self.fenced, self.committed = action, False, None
                self.check_cut()
            case _:
                super().obey(action)

    def check_cut(self) -> None:
        """All rows between the committed positions and those of the transaction, and no others."""
        if not isinstance(self.ending, CommitTransaction) or self.spoiled:
            return
        cut: Counter[tuple[str, Row]] = Counter()
        for where, position in self.ending.positions.items():
            log = self.logs[where.partition]
            assert log.committed <= position <= log.end
            cut.update((topic, row) for row, topic in self.due(log, log.committed, position).items())
        assert Counter(self.open) == cut

    def is_answered(self, row: Row) -> bool:
        return row in self.answered

    def fence(self, logs: Sequence[Log]) -> None:
        self.fenced = self.fenced or self.committed is None

    def commit(self, positions: Positions) -> None:
        assert not positions, "Positions are committed in transactions only."

    def work_elsewhere(self, log: Log, rows: list[tuple[str, Row]], position: int) -> None:
        self.seen += rows
        log.committed = position

    def drop(self, some: int) -> None:
        if self.ending is not None and self.committed is None:
            self.the_broker_decides(some % 2 == 1)
        self.forget()

    def answers(self) -> list[Callable[[], None]]:
        if self.ending is None:
            ours = [partial(self.the_broker_reports, which) for which in range(len(self.reports))]
        elif self.committed is None:
            ours = [partial(self.the_broker_decides, favourably) for favourably in (True, False)]
        else:
            ours = [partial(self.a_transaction_has_ended, 0)]
        return [*super().answers(), *ours]

    @precondition(lambda self: self.reports and self.ending is None)
    @rule(which=some)
    def the_broker_reports(self, which: int) -> None:
        self.tell(self.reports.pop(which % len(self.reports)))

    @precondition(lambda self: self.ending is not None and self.committed is None)
    @rule(favourably=st.booleans())
    def the_broker_decides(self, favourably: bool) -> None:
        commits = isinstance(self.ending, CommitTransaction) and not self.spoiled and not self.fenced
        self.committed = commits and favourably
        if self.committed and isinstance(self.ending, CommitTransaction):
            self.check_cut()
            self.seen += self.open
            self.answered.update(row for _, row in self.open)
            for where, position in self.ending.positions.items():
                self.logs[where.partition].committed = position

    @precondition(lambda self: self.committed is not None)
    @rule(unsaid=some)
    def a_transaction_has_ended(self, unsaid: int) -> None:
        """Reports come before the end; of what was taken back, some never."""
        reports, committed = list(self.reports), bool(self.committed)
        if not committed:
            reports = reports[unsaid % (len(reports) + 1) :]
        for report in reports:
            self.tell(report)
        self.forget()
        self.tell(TransactionEnded(committed))

    def was_refused(self, log: Log, row: Row) -> bool:
        """The letter for it takes its place when the transaction is sent anew."""
        return False

    def check_order(self) -> None:
        super().check_order()
        assert set(Counter(self.seen).values()) <= {1}


class TestD2ExactlyOnce(ExactlyOnce.TestCase):  # type: ignore[misc, valid-type]
    """D2.1, D2.3, D4.1, D5.1, D6.1: whatever happens in whatever order, every record is seen once, and positions are its cut."""


def test_d2_d6_a_partition_that_is_lost_is_in_no_transaction_and_in_none_that_is_sent_anew() -> None:
    """D2.1, D6.1."""
    world = ExactlyOnce()
    backlog = [FATES[0]] * 3
    world.begin(2, False, (8, 8), budget=15, outbound=20, interval_s=0.2, ordered=True, backlog=backlog)
    while any(log.committed < log.end for log in world.logs):
        world.go_on()
    for place in (0, 1):
        world.produce(place, backlog, 0)
    while {row.partition for _, row in world.open} != {0, 1}:
        world.go_on()
    assert world.ending is None
    world.lose(0, 1)
    assert isinstance(world.ending, AbortTransaction)
    world.teardown()
