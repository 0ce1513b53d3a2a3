"""Several calls of a model at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

from streamml.adapters.models.python_function import Answering
from streamml.batch.column import Array
from streamml.errors import ModelBusy, ModelFault
from streamml.ports.model import PartialAnswer

Part = Mapping[str, Array]

_HANGS_S: Final = 600.0


class _Job(Future[PartialAnswer]):
    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part
        self.began = threading.Event()


class Lanes:
    """Threads that call a scorer each; a single scorer without a timeout is called right where it is asked."""

    def __init__(self, label: str, scorers: Sequence[Answering], timeout_s: float | None) -> None:
        """
        Args:
            label: what messages call the model.
            scorers: one for each call at once.
            timeout_s: a call that takes longer is given up; its thread stays away until it comes back.
        """
        self._label = label
        self._scorers = scorers
        self._timeout_s = timeout_s
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        # When the call of each thread that is in one began.
        self._away: dict[int, float] = {}
        self._threads: list[threading.Thread] = []
        if len(scorers) > 1 or timeout_s is not None:
            # Daemons, as a call that hangs must not keep the process alive past its shutdown budget.
            self._threads = [
                threading.Thread(target=self._work, args=(number, scorer), name=f"{label}-{number}", daemon=True)
                for number, scorer in enumerate(scorers)
            ]
        for thread in self._threads:
            thread.start()

    def answers(self, parts: Sequence[Part], turn: Callable[[float], float]) -> list[PartialAnswer]:
        """The answers to all parts, in their order.

        Args:
            turn: takes the next turn to call at a monotonic time; returns the seconds until then.

        Raises:
            StreamMLError: what the first call that failed raised; calls that have not begun are not made then.
            ModelBusy: a call took too long.
            ModelFault: `close` was called meanwhile, or no call has come back for ten minutes.
        """
        if not self._threads:
            return [self._paced(part, turn) for part in parts]
        jobs: list[_Job] = []
        try:
            for part in parts:
                self._wait(turn(time.monotonic()))
                jobs.append(_Job(part))
                self._jobs.put(jobs[-1])
            return [self._answer(job) for job in jobs]
        finally:
            self._withdraw(jobs)

    def close(self) -> None:
        """End the threads and whatever their scorers hold; a thread whose call hangs is left behind."""
        self._closing.set()
        for _ in self._threads:
            self._jobs.put(None)
        for scorer in set(self._scorers):
            scorer.close()
        for thread in self._threads:
            thread.join(timeout=0.2)

    def _withdraw(self, jobs: Sequence[_Job]) -> None:
        """Take back what did not begin: behind calls that hang, each try of a batch would stay here."""
        for job in jobs:
            job.cancel()
        with suppress(queue.Empty):
            # Until nothing is left; a ``None`` is for a thread to end, and goes back.
            while self._jobs.get_nowait() is not None:
                continue
            self._jobs.put(None)

    def _paced(self, part: Part, turn: Callable[[float], float]) -> PartialAnswer:
        self._wait(turn(time.monotonic()))
        return self._scorers[0](part)

    def _wait(self, wait_s: float) -> None:
        if wait_s > 0 and self._closing.wait(wait_s):
            raise ModelFault(f"Model {self._label} was closed while it waited for its turn.")

    def _answer(self, job: _Job) -> PartialAnswer:
        with suppress(TimeoutError):
            # Jobs begin in order and those before it are done, so one that does not begin waits for calls that hang.
            if self._timeout_s is None or job.began.wait(self._timeout_s):
                return job.result(self._timeout_s)
        if self._hang():
            raise ModelFault(
                f"No call of model {self._label} has come back for {_HANGS_S:.0f} s, and a thread cannot be ended: give the "
                'function a timeout of its own, or let it run with isolation="process".'
            )
        raise ModelBusy(
            f"A call of model {self._label} took longer than its timeout of {self._timeout_s} s; it is tried again later."
        )

    def _hang(self) -> bool:
        """Whether all threads have been away for so long that only a new worker has others."""
        began = list(self._away.values())
        return len(began) == len(self._threads) and time.monotonic() - max(began) > _HANGS_S

    def _work(self, number: int, scorer: Answering) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.set_running_or_notify_cancel():
                continue
            self._away[number] = time.monotonic()
            job.began.set()
            try:
                job.set_result(scorer(job.part))
            except BaseException as error:  # noqa: BLE001  raised where the answer is waited for
                job.set_exception(error)
            finally:
                del self._away[number]
