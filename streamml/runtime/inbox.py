"""What meets in a worker's inbox: everything that its own thread has to hear of, in order."""

from __future__ import annotations

import logging
import queue
from dataclasses import dataclass
from typing import Final

from streamml.engine.events import Event
from streamml.errors import FatalError, StreamMLError
from streamml.ports.source import RecordRun, TopicPartition

_LOG: Final = logging.getLogger("streamml.worker")


class Polls:
    """Records that were polled and not taken yet. More may be added until the engine takes them, or until the assignment
    changes: what is polled after that comes behind the change."""

    def __init__(self) -> None:
        self.runs: list[RecordRun] = []
        self.ends: dict[TopicPartition, int] = {}


@dataclass(frozen=True, slots=True)
class Crash:
    """A thread ended with an error that it could not answer itself."""

    error: StreamMLError

    @staticmethod
    def of(error: Exception, where: str) -> Crash:
        """The end of a thread; an error that is none of ours is a bug, and told as one."""
        if isinstance(error, StreamMLError):
            return Crash(error)
        _LOG.error("Unexpected %s in %s", type(error).__name__, where, exc_info=error)
        return Crash(FatalError(f"Unexpected {type(error).__name__} in {where}; the log has where. Nothing is lost."))


Message = Event | Polls | Crash
Inbox = queue.SimpleQueue[Message]
