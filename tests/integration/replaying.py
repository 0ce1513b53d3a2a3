"""Replays of the small job, in this process or as one that can be killed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from streamml.adapters.kafka.tail import read_topic
from streamml.engine.identity import Provenance, read_header
from streamml.ops.replay.plan import Wanted, gathered, planned
from streamml.ops.replay.replay import Replay
from streamml.ops.replay.run import Manner, begin, carry_out, resumable, score
from streamml.ops.replay.span import Asked
from streamml.ops.run import StopSignal
from streamml.settings.settings import Settings
from tests.integration.scoring import Job


@dataclass
class Replaying:
    """Plans, begins and resumes replays of one job."""

    job: Job
    guarantee: str = "at_least_once"
    stop: StopSignal = field(default_factory=StopSignal)

    @property
    def settings(self) -> Settings:
        settings = self.job.settings
        worker = settings.worker.model_copy(update={"processing_guarantee": self.guarantee})
        return settings.model_copy(update={"worker": worker})

    def begin(self, start: object, end: object, **wanted: Any) -> Replay:
        """A replay with a number and topics; nothing is scored."""
        asked = {name: wanted.pop(name) for name in list(wanted) if name in Asked.__slots__}
        with planned(self.job.located, self.settings, Wanted(Asked(str(start), str(end), **asked), **wanted)) as (
            plan,
            _,
        ):
            return begin(self.job.topology, self.settings, plan.draft)

    def run(self, start: object, end: object, *, manner: Manner | None = None, **wanted: Any) -> Replay:
        """A whole replay."""
        return self.finish(self.begin(start, end, **wanted), manner=manner)

    def finish(self, replay: Replay, *, manner: Manner | None = None, resumed: bool = False) -> Replay:
        topology, settings, manner = self.job.topology, self.settings, manner or Manner(patience_s=20)
        with gathered(topology, self.job.located.repository, settings, replay.models, replay.features) as parts:
            ended, _ = carry_out(
                topology,
                settings,
                replay,
                lambda: score(topology, parts, settings, replay, manner, self.stop),
                self.stop,
                resumed=resumed,
            )
        return ended

    def resume(self, number: int, *, manner: Manner | None = None) -> Replay:
        found = resumable(self.job.topology, self.settings, number)
        return self.finish(found, manner=manner, resumed=True)

    def written(self, replay: Replay) -> list[tuple[str, Provenance]]:
        """Id in the value and provenance of each prediction."""
        found = []
        for one in read_topic(self.settings.client(), replay.into):
            mark = dict(one.record.headers)["streamml"]
            assert mark is not None
            found.append((json.loads(one.record.value or b"")["id"], read_header(mark)))
        return found

    def ids(self, replay: Replay) -> Counter[str]:
        return Counter(id for id, _ in self.written(replay))


def of(job: Job, **changes: Any) -> Replaying:
    return replace(Replaying(job), **changes)
