"""Judges a run from outside: what went in, what came out, and whether every record ended exactly as it should.

It knows nothing of a worker but the ids that predictions and dead letters carry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from streamml.engine.identity import HEADER, Provenance, read_header

Value = Mapping[str, Any]
_NO_RECORD: Final = -1
_REMARKS: Final = 20


class Place(NamedTuple):
    """Where a record is in the input topic."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a referee found.

    Args:
        produced: records in the input.
        poison: those of them that are no events.
        predicted: distinct records with a prediction.
        dead_letters: distinct records with a dead letter.
        lost: records with neither.
        duplicated: predictions beyond the first of their record and revision (equal in both, so consumers can tell).
        wrong: predictions, duplicates among them, of other content than they should have or of records that should have
            none, unless a higher revision took their place; dead letters of good records or of none.
        out_of_order: first live predictions that came behind one of a later record of their partition.
        corrected: distinct records with a prediction of a revision above 0.
    """

    produced: int
    poison: int
    predicted: int
    dead_letters: int
    lost: int
    duplicated: int
    wrong: int
    out_of_order: int
    corrected: int = 0

    def document(self) -> dict[str, int]:
        return asdict(self)


class Referee:
    """Counts.

    Args:
        is_right: whether a prediction is what the event of that number should get; ``None``: that cannot be told yet, and is asked again.
    """

    def __init__(self, is_right: Callable[[int, Value], bool | None]) -> None:
        self._is_right = is_right
        self._produced: dict[Place, int | None] = {}
        # By record, the highest revision that came, and how many predictions of it are wrong.
        self._revisions: dict[Place, int] = {}
        self._wrong: dict[Place, int] = {}
        self._predicted: set[tuple[Place, int]] = set()
        self._answered: set[Place] = set()
        self._letters: set[Place] = set()
        self._latest: dict[tuple[int, int], int] = {}
        self._poison = self._duplicated = self._out_of_order = 0
        self._early: list[tuple[Place, Value, int]] = []
        self._remarks: list[str] = []

    def produced(self, place: Place, event: int | None) -> None:
        """A record is in the input: the event of this number, or ``None`` for one that is none (poison)."""
        self._poison += event is None
        self._produced[place] = event

    def predicted(self, id: str, out_partition: int, value: Value, revision: int = 0) -> bool:
        """A prediction arrived; whether it is the first of its record and revision."""
        place = place_of(id)
        self._answered.add(place)
        self._judge(place, value, revision)
        if (place, revision) in self._predicted:
            self._duplicated += 1
            return False
        self._predicted.add((place, revision))
        if not revision:
            self._check_order(place, out_partition, id)
        return True

    def _check_order(self, place: Place, out_partition: int, id: str) -> None:
        lane = (place.partition, out_partition)
        if place.offset < self._latest.get(lane, -1):
            self._out_of_order += 1
            self._remark(f"{id} came behind {self._latest[lane]} in partition {out_partition}")
        self._latest[lane] = max(place.offset, self._latest.get(lane, -1))

    def dead_lettered(self, id: str) -> None:
        """A dead letter arrived."""
        self._letters.add(place_of(id))

    @property
    def open(self) -> int:
        """Records that have not ended yet."""
        return len(self._unended())

    def _unended(self) -> set[Place]:
        return self._produced.keys() - self._answered - self._letters

    def verdict(self, *, under_way: bool = False) -> Verdict:
        """Everything so far.

        Args:
            under_way: records may yet be told of whose predictions are here already; otherwise these are of no record.
        """
        early, self._early = self._early, []
        for place, value, revision in early:
            self._judge(place, value, revision)
        bad_letters = self._bad_letters()
        return Verdict(
            produced=len(self._produced),
            poison=self._poison,
            predicted=len(self._answered),
            dead_letters=len(self._letters),
            lost=self.open,
            duplicated=self._duplicated,
            wrong=sum(self._wrong.values()) + len(bad_letters) + (0 if under_way else len(self._early)),
            out_of_order=self._out_of_order,
            corrected=len({place for place, revision in self._predicted if revision}),
        )

    def remarks(self) -> list[str]:
        """Which records were lost, wrong or out of order: the first of each, in words."""
        lost = sorted(self._unended())
        return [
            *self._remarks,
            *(f"{place} has no prediction and no dead letter" for place in lost[:_REMARKS]),
            *(f"{place} has a dead letter and should have none" for place in sorted(self._bad_letters())[:_REMARKS]),
            *(f"{place} {self._what_of(place)}" for place, *_ in self._early[:_REMARKS]),
        ]

    def _what_of(self, place: Place) -> str:
        known = place in self._produced
        return "has a prediction that nothing explains" if known else "is no record and has a prediction"

    def _bad_letters(self) -> set[Place]:
        return {place for place in self._letters if self._produced.get(place, _NO_RECORD) is not None}

    @property
    def undecided(self) -> int:
        """Predictions that cannot be judged yet."""
        return len(self._early)

    def _judge(self, place: Place, value: Value, revision: int) -> None:
        if place not in self._produced:
            self._early.append((place, value, revision))  # its record's own acknowledgement is still on the way
            return
        event = self._produced[place]
        right = event is not None and self._is_right(event, value)
        if right is None:
            self._early.append((place, value, revision))
            return
        before = self._revisions.get(place, -1)
        if revision < before:
            return
        if revision > before:
            self._revisions[place] = revision
            self._wrong.pop(place, None)
        if not right:
            self._wrong[place] = self._wrong.get(place, 0) + 1
            self._remark(f"{place}, event {event}, has the prediction {dict(value)}")

    def _remark(self, text: str) -> None:
        if len(self._remarks) < _REMARKS:
            self._remarks.append(text)


def place_of(id: str) -> Place:
    """Partition and offset in a prediction id.

    Raises:
        ValueError: it is no id of a whole record.
    """
    _, partition, offset = id.rsplit("/", 2)
    return Place(int(partition), int(offset))


def provenance_of(headers: list[tuple[str, bytes]] | None) -> Provenance:
    """What a prediction's header says.

    Raises:
        ValueError: there is none.
    """
    marks = dict(headers or [])
    if HEADER not in marks:
        raise ValueError(f"A prediction has no header {HEADER!r}.")
    return read_header(marks[HEADER])


def id_of(headers: list[tuple[str, bytes]] | None) -> str:
    """The id in a prediction's provenance header.

    Raises:
        ValueError: there is none.
    """
    return provenance_of(headers).id
