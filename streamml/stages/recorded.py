"""The operator that stands in for a lookup in a replay: features as they were used, and not as they are now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from streamml.batch.column import Array, sealed
from streamml.batch.flags import FLAGS
from streamml.batch.microbatch import Int, Mask, MicroBatch, Origin
from streamml.batch.outcome import Failure, Outcomes, dead_letters
from streamml.ports.feature_log import LoggedRows, RecordedFeatures
from streamml.topology.features import FeatureSet

NOT_RECORDED: Final = (
    "No features were recorded for this row: live it became a dead letter, or the feature log has a hole."
)


class LookUpRecorded:
    """Joins the feature columns that the rows had live, with the flags of then.

    Rows without any become dead letters. Where only some sets are as they were, they get the defaults and the flag ``:missing``, if the
    sets allow that: what became a dead letter live may be scored now by the other sets.
    """

    outside = True
    too_large = 0

    def __init__(
        self,
        name: str,
        sets: Sequence[FeatureSet],
        recorded: RecordedFeatures,
        prefixes: Sequence[str],
        *,
        partly: bool = False,
    ) -> None:
        """
        Args:
            name: of the lookup that it stands in for.
            prefixes: prediction id prefixes by slot.
            partly: whether rows without recorded features get defaults.
        """
        self.name = name
        self._defaults_flag = None
        if partly and all(one.if_missing == "default" for one in sets):
            self._defaults_flag = ",".join(f"{one.name}:missing" for one in sets)
        self._sets = frozenset(one.name for one in sets)
        self._columns = {name: kind for one in sets for name, kind in one.outputs.items()}
        self._recorded = recorded
        self._prefixes = prefixes

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        origin = batch.origin
        known = np.zeros(len(batch), bool)
        flags = np.full(len(batch), FLAGS.code(self._defaults_flag or ""), np.int64)
        columns: dict[str, Array] = {
            name: np.full((len(batch), *kind.shape), 0 if kind.default is None else kind.default, kind.dtype)
            for name, kind in self._columns.items()
        }
        for number in np.unique(origin.slot).tolist():
            rows = np.flatnonzero(origin.slot == number)
            logged, places, found = self._logged(number, origin.take(rows))
            rows = rows[found]
            known[rows] = True
            flags[rows] = self._codes(logged)[logged.text[places]]
            for name, column in columns.items():
                column[rows] = logged.columns[name][places]
        whole = batch.with_columns({name: sealed(column) for name, column in columns.items()})
        whole = MicroBatch(origin.with_flags(FLAGS.joined(origin.flags, flags)), whole.columns)
        if self._defaults_flag is not None or known.all():
            return whole, []
        failure = Failure(self.name, "FeatureMissing", NOT_RECORDED)
        lost = dead_letters(origin.take(~known), [failure] * int((~known).sum()))
        return whole.take(known), [lost]

    def _logged(self, number: int, origin: Origin) -> tuple[LoggedRows, Int, Mask]:
        """What was recorded around rows of one slot, the places of those that are among it, and which those are."""
        first, last = int(origin.offset.min()), int(origin.offset.max())
        logged = self._recorded.rows(self._prefixes[number], first, last, int(origin.timestamp.min()))
        have, want = _keys(logged, origin, first)
        places = np.searchsorted(have, want)
        found = places < len(have)
        found[found] = have[places[found]] == want[found]
        return logged, places[found], found

    def _codes(self, logged: LoggedRows) -> Int:
        """Codes of the flags by text, with nothing else than what this lookup's sets said."""
        return np.array([FLAGS.code(self._own(text)) for text in logged.texts], np.int64)

    def _own(self, text: str) -> str:
        parts = (part for part in text.split(",") if "@" in part or ":" in part)
        return ",".join(part for part in parts if part.split("@")[0].split(":")[0] in self._sets)


def _keys(logged: LoggedRows, origin: Origin, first: int) -> tuple[Int, Int]:
    """Ascending numbers of the recorded rows, and the numbers of the rows that are looked for.

    Rows that are not exploded yet have what any of their children had later.
    """
    if origin.child is None or logged.child is None:
        return logged.offset, origin.offset
    width = int(max(logged.child.max(initial=0), origin.child.max())) + 2
    return (logged.offset - first) * width + logged.child + 1, (origin.offset - first) * width + origin.child + 1
