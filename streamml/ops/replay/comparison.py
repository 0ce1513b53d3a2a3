"""What a comparison found, as data; see docs/guide/corrections.md for what each number means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from streamml.ops.replay.predictions import Kind

HIDDEN: Final = "•••"
QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows, each in exactly one of these.

    Args:
        same, changed: predicted on both sides.
        missing: predicted on the other side only, and not dead-lettered by the run.
        extra: predicted by the run only, and no dead letter of the other side.
        dead_lettered: dead letters of the run that the other side does not have.
        recovered: dead letters of the other side that the run does not have.
        still_dead_lettered: dead letters of both.
    """

    same: int = 0
    changed: int = 0
    missing: int = 0
    extra: int = 0
    dead_lettered: int = 0
    recovered: int = 0
    still_dead_lettered: int = 0

    @property
    def rows(self) -> int:
        """All of them; shares are taken of it."""
        return sum(asdict(self).values())


@dataclass(frozen=True, slots=True)
class Distribution:
    """One side's values of a field. ``quantiles`` are those of `QUANTILES`; all but the counts are ``None`` without values."""

    values: int
    nulls: int
    mean: float | None
    deviation: float | None
    least: float | None
    largest: float | None
    quantiles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values of each side lie between ``edges[i]`` and ``edges[i + 1]``."""

    edges: tuple[float, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mover:
    """A row whose value moved far: ``id`` of the prediction, key as text, times in ms since 1970 UTC."""

    id: str
    key: str | None
    time_ms: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Change:
    """Difference after − before of a field of numbers, over rows that have it on both sides."""

    rows: int
    mean: float | None
    mean_absolute: float | None
    p95_absolute: float | None
    largest_absolute: float | None


@dataclass(frozen=True, slots=True)
class Value:
    """How often a value stands on each side."""

    value: str | None
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Turn:
    """How many rows turned from one value into another."""

    before: str | None
    after: str | None
    rows: int


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One output field. Of a secret one only ``changed`` is told; the parts that its kind has not are ``None`` or empty."""

    name: str
    kind: Kind
    secret: bool
    changed: int
    before: Distribution | None = None
    after: Distribution | None = None
    change: Change | None = None
    histogram: Histogram | None = None
    movers: tuple[Mover, ...] = ()
    values: tuple[Value, ...] = ()
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Flip:
    """Rows that crossed a threshold: from below to it or above (``up``), and back (``down``)."""

    field: str
    threshold: float
    up: int
    down: int


@dataclass(frozen=True, slots=True)
class KeyChange:
    """The rows of a key that are not the same, most first."""

    key: str | None
    rows: int
    changed: int
    other: int


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of source time; ``means`` has of each field of numbers the mean before and after."""

    start_ms: int
    same: int
    changed: int
    other: int
    means: Mapping[str, tuple[float | None, float | None]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run beside what it is compared with.

    Args:
        run: number of the run.
        against: ``live``, or the number of another run.
        topics: of the run, and of the other side.
        tolerance: numbers that are no farther apart are the same; relative above 1, absolute below.
        letters: of newly dead-lettered rows: how many by ``step: error``.
        flipped: rows that crossed at least one of the thresholds.
        key: what ``keys`` are: ``key`` of the record, or a field.
        notes: sentences about what could not be read as usual.
    """

    topology: str
    run: int
    against: str
    topics: tuple[str, str]
    tolerance: float
    counts: Counts
    fields: tuple[FieldChange, ...]
    letters: Mapping[str, int]
    flips: tuple[Flip, ...]
    flipped: int
    key: str
    keys: tuple[KeyChange, ...]
    hours: tuple[Hour, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def keys_tell(self) -> bool:
        """Whether counting by key says anything: not where each key has one row that differs, as a key of its own per record."""
        return len(self.keys) == 1 or any(one.changed + one.other > 1 for one in self.keys)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        whole = asdict(self)
        whole["counts"]["rows"] = self.counts.rows
        whole["quantiles"] = list(QUANTILES)
        return whole
