"""How rows end: as a prediction, as a dead letter, or dropped on purpose."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np

from streamml.batch.column import Array
from streamml.batch.frozen import frozen
from streamml.batch.microbatch import Origin


class Kind(enum.Enum):
    """The three ends of a row."""

    PREDICTION = "prediction"
    DEAD_LETTER = "dead_letter"
    FILTERED = "filtered"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row became a dead letter.

    Args:
        step: name of the step that failed it.
        error: class name of the `streamml.errors.RowError`, or ``ModelOutOfMemory`` of a row that does not fit alone.
        message: one sentence without any of the record's values.
        model: ``name@version`` where a model failed it, else empty.
        attempts: number of the try that failed it; over 1 where something that its stage needs did not answer before.
        detail: what a user's function raised, and where in their file. It may hold values of the record, so it is for the
            author's own screen and never written to a topic or log.
    """

    step: str
    error: str
    message: str
    model: str = ""
    attempts: int = 1
    detail: str = field(default="", repr=False)


@frozen
class Outcomes:
    """Rows that ended the same way, in order.

    Args:
        kind: how they ended.
        origin: ``n`` rows.
        values: object ``[n]``; encoded prediction (bytes) or `Failure`; ``None`` for filtered rows.
        keys: object ``[n]`` of bytes or ``None``; the prediction's key. ``None`` for the other kinds.
        headers: object ``[n]``; list of (name, bytes) passed on from the record, or ``None`` where none are.
        features: structured ``[n]``; the feature values that the rows used, where they are logged; of dead letters ``None``.
        model: ``name@version`` of the last model, empty where there is none.
    """

    kind: Kind
    origin: Origin
    values: Array | None = None
    keys: Array | None = None
    headers: Array | None = None
    model: str = ""
    features: Array | None = None

    def __len__(self) -> int:
        return len(self.origin.slot)

    @property
    def size_bytes(self) -> int:
        """Bytes of features, and of the keys and values of predictions: records of other kinds are counted where they came in."""
        logged = 0 if self.features is None else self.features.nbytes
        if self.kind is not Kind.PREDICTION:
            return logged
        columns = [column.tolist() for column in (self.values, self.keys) if column is not None]
        return logged + sum(sum(map(len, filter(None, column))) for column in columns)

    @property
    def written(self) -> bool:
        """Whether something of these rows is written: rows that are dropped on purpose leave no more than their features."""
        return self.kind is not Kind.FILTERED or self.features is not None

    def take(self, index: Array | slice) -> Outcomes:
        """The rows at ``index``."""
        return Outcomes(
            self.kind,
            self.origin.take(index),
            None if self.values is None else self.values[index],
            None if self.keys is None else self.keys[index],
            None if self.headers is None else self.headers[index],
            self.model,
            None if self.features is None else self.features[index],
        )


def dead_letters(origin: Origin, failures: list[Failure]) -> Outcomes:
    """Dead letters of ``n`` rows with one failure each."""
    return Outcomes(Kind.DEAD_LETTER, origin, values=np.fromiter(failures, dtype=object, count=len(failures)))


def join_outcomes(pieces: list[Outcomes]) -> Outcomes:
    """All rows of ``pieces``, which are of one kind, in that order. The model is that of the first."""
    first, lengths = pieces[0], [len(piece) for piece in pieces]
    return Outcomes(
        first.kind,
        Origin.join([piece.origin for piece in pieces]),
        values=_join([piece.values for piece in pieces], lengths),
        keys=_join([piece.keys for piece in pieces], lengths),
        headers=_join([piece.headers for piece in pieces], lengths),
        model=first.model,
        features=_join_features([piece.features for piece in pieces], lengths),
    )


def _join(columns: list[Array | None], lengths: list[int]) -> Array | None:
    if all(column is None for column in columns):
        return None
    pairs = zip(columns, lengths, strict=True)
    return np.concatenate([np.full(length, None, object) if column is None else column for column, length in pairs])


def _join_features(columns: list[Array | None], lengths: list[int]) -> Array | None:
    """Rows without features are all zeros."""
    kind = next((column.dtype for column in columns if column is not None), None)
    if kind is None:
        return None
    pairs = zip(columns, lengths, strict=True)
    return np.concatenate([np.zeros(length, kind) if column is None else column for column, length in pairs])
