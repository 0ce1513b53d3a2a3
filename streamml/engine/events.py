"""What the engine is told, and what it says to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streamml.batch.frozen import frozen
from streamml.batch.microbatch import MicroBatch
from streamml.batch.outcome import Outcomes
from streamml.errors import StreamMLError
from streamml.ports.control import GroupState
from streamml.ports.sink import Delivered, OutboundRecords, TransactionEnded
from streamml.ports.source import Positions, RecordRun, TopicPartition


@dataclass(frozen=True, slots=True)
class Assigned:
    """Partitions are ours from these offsets on."""

    positions: Positions

    @property
    def partitions(self) -> tuple[TopicPartition, ...]:
        return tuple(self.positions)


@dataclass(frozen=True, slots=True)
class Revoking:
    """Partitions are about to go; finish what fits before ``deadline`` (seconds since 1970).

    ``number`` tells a revoke from a later one of the same partitions; its answer has it, too.
    """

    partitions: tuple[TopicPartition, ...]
    deadline: float
    number: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Partitions are gone; forget them."""

    partitions: tuple[TopicPartition, ...]


@frozen
class Polled:
    """Records arrived, and after them ends of partitions, see `Source.ends`."""

    runs: Sequence[RecordRun]
    ends: Positions = field(default_factory=dict)


@frozen
class StepTiming:
    """What one step of a stage took for one batch.

    Args:
        outside: whether the step mostly waits, or computes outside of Python's lock: other threads run meanwhile.
        too_large: calls of the step since the start that did not fit into memory.
    """

    step: str
    rows: int
    seconds: float
    outside: bool = False
    too_large: int = 0


@frozen
class StageResult:
    """What became of a stage's batch: rows that go on, and rows that ended. Every input row is in exactly one.

    Args:
        size_bytes: of the rows that go on, without what the records hold themselves, which is counted until they are settled.
    """

    batch: MicroBatch
    outcomes: Sequence[Outcomes] = ()
    timings: Sequence[StepTiming] = ()
    size_bytes: int = 0


@frozen
class StageDone:
    """A stage finished job ``job``."""

    job: int
    result: StageResult


@dataclass(frozen=True, slots=True)
class StageFailed:
    """A stage could not do job ``job``: a `TransientError` is tried again, any other error stops the worker."""

    job: int
    error: StreamMLError
    random: float = 0.5


@dataclass(frozen=True, slots=True)
class CommitFailed:
    """A commit of these partitions did not go through."""

    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Take no more records; finish what is on its way before ``deadline``."""

    deadline: float


@dataclass(frozen=True, slots=True)
class GroupTold:
    """The group is to pause, or to go on."""

    state: GroupState


Event = (
    Assigned
    | Revoking
    | Lost
    | Polled
    | StageDone
    | StageFailed
    | Delivered
    | TransactionEnded
    | CommitFailed
    | Tick
    | Stop
    | GroupTold
)


@frozen
class RunStage:
    """Run stage number ``stage`` on ``batch``; answer with `StageDone` or `StageFailed`."""

    job: int
    stage: int
    batch: MicroBatch
    attempt: int = 1


@frozen
class Send:
    """Write these records; answer with `Delivered`. ``outcomes`` are the rows they stand for, block by block.

    Behind these blocks there may be one of the feature log.
    """

    token: int
    blocks: tuple[OutboundRecords, ...]
    outcomes: tuple[Outcomes, ...]


@frozen
class Settled:
    """Rows reached their end: acknowledged, or dropped on purpose. For the metrics."""

    outcomes: tuple[Outcomes, ...]


@frozen
class Commit:
    """Commit these positions; no answer is needed."""

    positions: Positions


@dataclass(frozen=True, slots=True)
class CommitTransaction:
    """Commit what was sent since the last transaction ended, with these positions; answer with `TransactionEnded`."""

    positions: Positions


@dataclass(frozen=True, slots=True)
class AbortTransaction:
    """Take back what was sent since the last transaction ended; answer with `TransactionEnded`."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Take records (``open``) or stop taking them."""

    open: bool


@dataclass(frozen=True, slots=True)
class TellGroup:
    """A storm of dead letters broke out: tell all members to pause. This one does already."""

    state: GroupState


@dataclass(frozen=True, slots=True)
class Released:
    """The answer to `Revoking` number ``number``: commit these positions, the partitions may go."""

    partitions: tuple[TopicPartition, ...]
    positions: Positions
    number: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The answer to `Stop`: commit these positions and leave. ``abandoned`` records will be read again."""

    positions: Positions
    abandoned: int


@dataclass(frozen=True, slots=True)
class Fail:
    """Stop at once with this error."""

    error: StreamMLError


Action = (
    RunStage
    | Send
    | Settled
    | Commit
    | CommitTransaction
    | AbortTransaction
    | Gate
    | TellGroup
    | Released
    | Stopped
    | Fail
)
