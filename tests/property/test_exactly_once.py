"""The engine in transactions under random schedules: every record ends once for whoever reads what was committed (D2)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.engine import Engine
from streamml.engine.events import (
    AbortTransaction,
    Action,
    Commit,
    CommitTransaction,
    RunStage,
    Send,
)
from streamml.ports.sink import Delivered, Refusal, TransactionEnded
from streamml.ports.source import Positions, TopicPartition
from tests.property.test_engine import CONFIG, PARTITIONS, World

Row = tuple[str, TopicPartition, int]


class Transactions(World):
    """A broker with transactions; what is in them is seen, and their positions count, when they are committed."""

    def __init__(self, seed: int, records: int) -> None:
        super().__init__(seed, records)
        self.open: list[Row] = []
        self.ending: TransactionEnded | None = None
        self.spoiled = False
        self.seen: dict[TopicPartition, list[tuple[str, int]]] = defaultdict(list)
        self.filtered: set[tuple[TopicPartition, int]] = set()

    def new_engine(self) -> Engine:
        return Engine(replace(CONFIG, exactly_once=True), self.names)

    def obey(self, action: Action) -> None:
        match action:
            case Send():
                for block, outcomes in zip(action.blocks, action.outcomes, strict=True):
                    self.open += [(block.topic, *where) for where in self.places(outcomes)]
                refused = self.random.random() < 0.1 and action.outcomes[0].kind is Kind.PREDICTION
                self.spoiled = self.spoiled or refused
                refusals = (Refusal(0, 0, "too large"),) if refused else ()
                self.pending.append(Delivered(action.token, refusals))
            case CommitTransaction(positions=positions):
                committed = not self.spoiled and self.random.random() < 0.8
                if committed:
                    self.apply(positions)
                self.end(committed)
            case AbortTransaction():
                self.end(False)
            case Commit():
                raise AssertionError("Positions are committed in transactions only.")
            case RunStage():
                answer = self.answer(action)
                for piece in getattr(getattr(answer, "result", None), "outcomes", ()):
                    if piece.kind is Kind.FILTERED:
                        self.filtered.update(self.places(piece))
                self.pending.append(answer)
            case _:
                super().obey(action)

    def places(self, outcomes: Outcomes) -> list[tuple[TopicPartition, int]]:
        rows = zip(outcomes.origin.slot.tolist(), outcomes.origin.offset.tolist(), strict=True)
        partitions = [int(prefix.split("/")[1]) for prefix in self.names.prefixes]
        return [(PARTITIONS[partitions[slot]], offset) for slot, offset in rows]

    def apply(self, positions: Positions) -> None:
        for topic, partition, offset in self.open:
            assert self.committed[partition] <= offset < positions[partition], "not a cut"
            self.seen[partition].append((topic, offset))
        for partition, position in positions.items():
            cut = {offset for _, where, offset in self.open if where == partition}
            rest = set(range(self.committed[partition], position)) - cut
            assert all((partition, offset) in self.filtered for offset in rest), "left out"
        self.committed.update(positions)

    def end(self, committed: bool) -> None:
        self.open, self.spoiled = [], False
        self.ending = TransactionEnded(committed)

    def step(self) -> None:
        # Reports of a transaction come before its end.
        if self.ending is not None and not any(isinstance(one, Delivered) for one in self.pending):
            self.pending.append(self.ending)
            self.ending = None
        super().step()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 120))
def test_d2_every_record_ends_once_and_positions_are_its_cut(seed: int, records: int) -> None:
    """D2.1, D2.3."""
    world = Transactions(seed, records)
    for partition in PARTITIONS:
        world.assign(partition)
    for _ in range(30_000):
        world.step()
        if all(position == records for position in world.committed.values()):
            break
    assert world.committed == dict.fromkeys(PARTITIONS, records)
    for partition in PARTITIONS:
        offsets = [offset for _, offset in world.seen[partition]]
        assert len(offsets) == len(set(offsets))
        assert all((partition, offset) in world.filtered for offset in set(range(records)) - set(offsets))
        predicted = [offset for topic, offset in world.seen[partition] if topic == "predictions"]
        assert predicted == sorted(predicted)
