"""Where a stage runs: on a thread of its own, or on the worker's."""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Sequence
from typing import Final

from streamml.clock import Clock
from streamml.engine.events import RunStage, StageDone, StageFailed, StepTiming
from streamml.errors import FatalError, StreamMLError, TransientError
from streamml.runtime.inbox import Crash, Inbox
from streamml.runtime.pulse import Pulse
from streamml.stages.stage import Stage

_LOG: Final = logging.getLogger("streamml.worker")
# Outside of Python's lock, when that is half of the batch's time as well: else there is too little to overlap it with.
_WAITS_S: Final = 0.005
_LONG_S: Final = 0.2
# On a busy machine any batch may have waited for the processor; so many in a row have not.
_IN_A_ROW: Final = 3


class Lane:
    """Runs one stage: on a thread of its own, or, while its batches are quick, right where it is asked to.

    Python runs one thread at a time. Threads pay where a step waits or computes outside of Python's lock for longer than
    it takes to hand over; for quick steps they only take the lock from each other (measured on two cores: 65,000 events/s
    with two lanes on threads, 109,000 without).
    """

    def __init__(self, name: str, stage: Stage, clock: Clock, inbox: Inbox, pulse: Pulse) -> None:
        self._stage = stage
        self._clock = clock
        self._inbox = inbox
        self._pulse = pulse
        self._what = f"the stage {stage.name}"
        self._slow_in_a_row = _IN_A_ROW
        self._jobs: queue.SimpleQueue[RunStage | None] = queue.SimpleQueue()
        # A daemon, as a model that hangs must not keep the process alive past its shutdown budget.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def quick(self) -> bool:
        """Whether the stage's next batch runs where it is asked for. Not while one runs, nor after an error."""
        return self._slow_in_a_row < _IN_A_ROW

    def submit(self, job: RunStage) -> None:
        """Run a job on the lane's thread; the answer comes into the inbox."""
        self._jobs.put(job)

    def stop(self) -> None:
        self._jobs.put(None)
        self._thread.join(timeout=1.0)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._inbox.put(self.answer(job))

    def answer(self, job: RunStage) -> StageDone | StageFailed | Crash:
        """Run a job here and now."""
        slow, self._slow_in_a_row = self._slow_in_a_row, _IN_A_ROW
        try:
            with self._pulse.at(self._what):
                result = self._stage.run(job.batch, self._clock.now(), job.attempt)
        except StreamMLError as error:
            # A breaker has said so already.
            if isinstance(error, TransientError) and error.retry_in_s is None:
                _LOG.warning("Try %d of stage %d: %s", job.attempt, job.stage, error)
            return StageFailed(job.job, error, random.random())  # noqa: S311  jitter needs no secrecy
        except Exception as error:  # noqa: BLE001  a crash ends the worker with it
            return Crash.of(error, f"the stage {self._stage.name}")
        except BaseException as error:  # noqa: BLE001  sys.exit() in a user's function would end this thread alone, in silence
            return Crash(
                FatalError(f"A step of the stage {self._stage.name} ended with {type(error).__name__}; let it raise.")
            )
        self._slow_in_a_row = _slow_with(result.timings, slow)
        return StageDone(job.job, result)


def _slow_with(timings: Sequence[StepTiming], before: int) -> int:
    """How many batches in a row were slow, with this one after ``before``."""
    whole = outside = 0.0
    for timing in timings:
        whole += timing.seconds
        outside += timing.seconds if timing.outside else 0.0
    if whole >= _LONG_S:
        return _IN_A_ROW
    return before + 1 if outside >= max(_WAITS_S, whole / 2) else 0
