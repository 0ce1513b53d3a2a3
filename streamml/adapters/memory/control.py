"""A group's state on the in-process broker."""

from __future__ import annotations

from collections.abc import Callable

from streamml.adapters.memory.broker import MemoryBroker
from streamml.errors import FatalError
from streamml.ports.control import GroupState


class MemoryControl:
    """See `streamml.ports.control.Control` for the contract; here, whoever tells the group is the thread that calls."""

    def __init__(self, broker: MemoryBroker, group: str) -> None:
        self._broker = broker
        self._group = group
        self._changed: Callable[[GroupState], None] | None = None

    def open(self, changed: Callable[[GroupState], None], failed: Callable[[FatalError], None]) -> GroupState:
        """See `Control.open`."""
        self._changed = changed
        return self._broker.hear_of_group(self._group, changed)

    def record(self, state: GroupState) -> None:
        """See `Control.record`. The broker's faults do not hinder it."""
        self._broker.tell_group(self._group, state)

    def trouble(self) -> str | None:
        """See `Control.trouble`."""
        return None

    def close(self) -> None:
        """See `Control.close`."""
        if self._changed is not None:
            self._broker.leave_group_alone(self._group, self._changed)
            self._changed = None
