"""Lets only those ends of rows out that were asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from streamml.batch.microbatch import MicroBatch
from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.identity import prediction_id
from streamml.stages.stage import Around, Operator


class OnlyChosen(Around):
    """Runs an operator, and drops what it ends of children that nobody asked for: their siblings went out before.

    A record that was asked for as a whole has all of its children chosen.
    """

    def __init__(self, operator: Operator, chosen: Collection[str], prefixes: Sequence[str]) -> None:
        """
        Args:
            chosen: prediction ids.
            prefixes: prediction id prefixes by slot number.
        """
        super().__init__(operator)
        self._chosen = chosen
        self._prefixes = prefixes

    def apply(self, batch: MicroBatch, now: float) -> tuple[MicroBatch, list[Outcomes]]:
        """See `Operator.apply`."""
        after, ended = self._operator.apply(batch, now)
        return after, [part for block in ended for part in self._parted(block)]

    def _parted(self, block: Outcomes) -> list[Outcomes]:
        origin = block.origin
        if origin.child is None or block.kind is Kind.FILTERED:
            return [block]
        rows = zip(origin.slot.tolist(), origin.offset.tolist(), origin.child.tolist(), strict=True)
        good = np.fromiter((self._is_chosen(*row) for row in rows), bool, len(block))
        if good.all():
            return [block]
        parts = [block.take(good), Outcomes(Kind.FILTERED, origin.take(~good))]
        return [part for part in parts if len(part)]

    def _is_chosen(self, slot: int, offset: int, child: int) -> bool:
        prefix = self._prefixes[slot]
        whole = prediction_id(prefix, offset)
        return whole in self._chosen or prediction_id(prefix, offset, child) in self._chosen
