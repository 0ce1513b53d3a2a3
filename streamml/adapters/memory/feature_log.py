"""A feature log of a broker in this process, read back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from streamml.engine.feature_log import LogSchema, partition_key
from streamml.ports.feature_log import LoggedRows
from streamml.ports.source import RawRecord


class RecordedInMemory:
    """Gives back features as they were used; see `streamml.ports.feature_log.RecordedFeatures` for the contract."""

    def __init__(self, records: Iterable[RawRecord], schema: LogSchema) -> None:
        """
        Args:
            records: of the log, those of each source partition in order.
        """
        self._nothing = schema.nothing()
        self._rows: dict[bytes | None, LoggedRows] = {}
        for one in records:
            known = self._rows.get(one.key, self._nothing)
            new = schema.decode(one.value or b"")
            if len(known):
                last, child = int(known.offset[-1]), int(known.children[-1])
                new = new.take((new.offset > last) | ((new.offset == last) & (new.children > child)))
            self._rows[one.key] = LoggedRows.join([known, new])

    def rows(self, prefix: str, first: int, last: int, since_ms: int) -> LoggedRows:
        """See `RecordedFeatures.rows`."""
        every = self._rows.get(partition_key(prefix), self._nothing)
        start, end = np.searchsorted(every.offset, (first, last + 1)).tolist()
        return every.take(slice(start, end))
