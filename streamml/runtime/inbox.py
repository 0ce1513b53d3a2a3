"""What meets in a worker's inbox: everything that its own thread has to hear of, in order."""

from __future__ import annotations

import queue
from dataclasses import dataclass

from streamml.engine.events import Event
from streamml.ports.source import RecordRun, TopicPartition


class Polls:
    """Records that were polled and not taken yet. More may be added until the engine takes them, or until the assignment
    changes: what is polled after that comes behind the change."""

    def __init__(self) -> None:
        self.runs: list[RecordRun] = []
        self.ends: dict[TopicPartition, int] = {}

    def rows(self) -> int:
        return sum(map(len, self.runs))


@dataclass(frozen=True, slots=True)
class Crash:
    """A thread ended with an error that it could not answer itself."""

    error: BaseException


Message = Event | Polls | Crash
Inbox = queue.SimpleQueue[Message]
