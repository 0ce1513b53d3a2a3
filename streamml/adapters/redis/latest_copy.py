"""Writes predictions that are in a topic already into Redis, and waits for it."""

from __future__ import annotations

from typing import Final, Self

from streamml.adapters.redis.latest import entries, latest_prefix, packed
from streamml.adapters.redis.latest_writer import LatestWriter
from streamml.errors import FeatureStoreDown, SinkUnavailable
from streamml.ports.sink import OutboundRecords

_PATIENCE_S: Final = 60.0
_TRIAL_S: Final = 2.0


class LatestCopy:
    """Takes blocks of predictions; Redis keeps those of which it has no newer one. Use it in a ``with`` statement."""

    def __init__(self, writer: LatestWriter, name: str) -> None:
        """
        Args:
            name: of the latest predictions in Redis.
        """
        self._writer = writer
        self._prefix = latest_prefix(name)

    def open(self) -> None:
        """Connect.

        Raises:
            SinkUnavailable: Redis does not answer.
        """
        try:
            self._writer.ping()
        except FeatureStoreDown as error:
            raise SinkUnavailable(str(error)) from None

    def write(self, records: OutboundRecords) -> None:
        """Write these; comes back when Redis has them.

        Raises:
            SinkUnavailable: it does not take them.
        """
        self._writer.put(0, *entries(records, self._prefix))
        if self._writer.wait(_PATIENCE_S):
            raise SinkUnavailable(f"{self._writer.trouble} Do it again; it goes on where it was.")

    def try_out(self) -> None:
        """Write one where none belongs, for a writer that keeps it for a moment: it takes every right that writing takes.

        Raises:
            SinkUnavailable: Redis does not take it.
        """
        self._writer.put(0, [self._prefix + b"probe"], [packed(b"", b"1;probe/0/0;;0;", 0)])
        if self._writer.wait(_TRIAL_S):
            raise SinkUnavailable(f"{self._writer.trouble}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close(0.0)
