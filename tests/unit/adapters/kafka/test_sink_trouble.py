"""When a sink says that the broker takes nothing."""

from __future__ import annotations

import time

import pytest

from streamml.adapters.kafka.sink import KafkaSink
from streamml.ports.sink import OutboundRecords


def test_silence_is_told_only_by_who_has_listened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that runs a long step meanwhile hears of no acknowledgement, however quick the broker is."""
    monkeypatch.setattr("streamml.adapters.kafka.sink.LONG_S", 0.05)
    sink = KafkaSink({"bootstrap.servers": "127.0.0.1:1"})
    sink.send(1, [OutboundRecords("out", [b"k"], [b"v"], [[]], [1])])
    sent = time.monotonic()
    while time.monotonic() < sent + 0.1:
        assert sink.trouble() is None
    sink.completions()
    trouble = sink.trouble()
    assert trouble is not None
    assert "has not acknowledged records for 'out'" in trouble
    sink.close(0.0)
