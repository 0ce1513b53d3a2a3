"""A sink that writes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from streamml.ports.sink import Delivered, OutboundRecords, TransactionEnded


class DiscardingSink:
    """Acknowledges at once; see `streamml.ports.sink.Sink` for the contract."""

    def __init__(self) -> None:
        self._ended: list[Delivered] = []

    def open(self) -> None:
        """See `Sink.open`."""

    def send(self, token: int, blocks: Sequence[OutboundRecords]) -> None:
        """See `Sink.send`."""
        self._ended.append(Delivered(token))

    def completions(self) -> Sequence[Delivered | TransactionEnded]:
        """See `Sink.completions`."""
        ended, self._ended = self._ended, []
        return ended

    def trouble(self) -> str | None:
        """See `Sink.trouble`."""
        return None

    def close(self, timeout_s: float) -> int:
        """See `Sink.close`."""
        return 0
