"""When no records are taken: a pause by hand, or a storm of dead letters (promise E4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from streamml.batch.outcome import Kind, Outcomes
from streamml.engine.dead_letters import DeadLetterLimit
from streamml.errors import DeadlineExceeded
from streamml.ports.control import RUNNING, GroupState, Storm


class Brake:
    """Weighs dead letters, and says what must not happen.

    The share is taken in windows of ``min_sample`` records. A window with too many is a storm: the group is to be paused, and
    whoever mends the cause and starts the workers again gets the records of the window again. So nothing is committed from
    the moment on at which a window has more dead letters than a whole one may have.
    """

    def __init__(self, limit: DeadLetterLimit, worker: str) -> None:
        """
        Args:
            worker: this worker's name, for the state that a storm brings about.
        """
        self._limit = limit
        self._worker = worker
        self._rows = 0
        self._letters = 0
        self._errors: Counter[tuple[str, str]] = Counter()
        self._broke_out: Storm | None = None
        self.state = RUNNING
        self.withholds = False

    def change(self, state: GroupState) -> None:
        """The group was told something. A storm's pause withholds commits until somebody resumes, whatever is said besides."""
        self.withholds = state.paused and (self.withholds or state.storm is not None)
        self.state = state
        if not state.paused:
            self._begin_window()

    def keeps_from_commit(self, *, idle: bool) -> bool:
        """Whether positions have to stay; a few dead letters at the end of a topic, with nothing behind them, are no storm."""
        looming = self._letters > self._limit.max_ratio * self._limit.min_sample
        return self.withholds or (looming and not idle)

    def weigh(self, outcomes: Iterable[Outcomes]) -> None:
        """Rows that ended. Those that were too late say nothing of what is wrong with records, so they do not count."""
        for block in outcomes:
            if block.kind is not Kind.DEAD_LETTER or block.values is None:
                self._rows += len(block)
                continue
            errors = [(one.step, one.error) for one in block.values if one.error != DeadlineExceeded.__name__]
            self._rows += len(errors)
            self._letters += len(errors)
            self._errors.update(errors)
        self._judge()

    def weigh_refused(self, letters: int) -> None:
        """Rows that were weighed as predictions, and became dead letters as the broker refuses them."""
        self._letters += letters

    def broke_out(self, now: float) -> GroupState | None:
        """The state that the group is to be told, once for each storm."""
        storm, self._broke_out = self._broke_out, None
        if storm is None:
            return None
        self.change(GroupState(True, self._reason(storm), self._worker, int(now * 1000), storm))
        return self.state

    def _judge(self) -> None:
        if self._rows < self._limit.min_sample or self.withholds:
            return
        share = self._letters / self._rows
        if share > self._limit.max_ratio:
            self._broke_out = Storm(share, self._rows)
            self.withholds = True
        else:
            self._begin_window()

    def _begin_window(self) -> None:
        self._rows = self._letters = 0
        self._errors.clear()

    def _reason(self, storm: Storm) -> str:
        (step, error), _ = self._errors.most_common(1)[0] if self._errors else (("", "refused predictions"), 0)
        where = f" in {step}" if step else ""
        return (
            f"{storm.share:.0%} of the latest {storm.sample} records became dead letters, and the topology allows "
            f"{self._limit.max_ratio:.0%}; most of them {error}{where}"
        )
