"""The demo from setting the stage to the summary. Everything it starts ends with it."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.engine.feature_log import LogSchema
from streamml.errors import FatalError
from streamml.ops.demo.faults import Fault, Script, pause_redis
from streamml.ops.demo.features_app import FeaturesApp
from streamml.ops.demo.feeder import Feeder
from streamml.ops.demo.freshness import Freshness
from streamml.ops.demo.incident import CommandLine, Incident
from streamml.ops.demo.judge import Explains, Judge
from streamml.ops.demo.stage import TOPOLOGY, DemoOptions, Progress, Stage
from streamml.ops.demo.summary import Books
from streamml.ops.demo.workers import Workers

_PATIENCE_S: Final = 60.0
_PAGE: Final = Path(tempfile.gettempdir()) / "streamml-demo-replay.html"
_OF_INCIDENT: Final = {"features": Incident.break_features, "mend": Incident.mend, "publish": Incident.publish}


class Show:
    """One demo. Use it in a ``with`` statement; `start`, then ask for `snapshot` until it is `over`, then `finish`."""

    def __init__(self, options: DemoOptions, progress: Progress, page: Path = _PAGE) -> None:
        """
        Args:
            progress: hears what is done at the start.
            page: where an incident's comparison is written.
        """
        self._options = options
        self._progress = progress
        self._page = page
        self._stage = Stage(options, progress)
        self._script = Script(options.faults)
        # The latest first: who reads or writes ends before what is read or written.
        self._ends = ExitStack()
        self._ends.callback(self._stage.close)
        self._ended_at: float | None = None
        self.leaving = False
        self.faults: list[Fault] = []

    def __enter__(self) -> Show:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self) -> None:
        """Set the stage and begin.

        Raises:
            ConfigError: the demo's files are not here, or a server cannot be started.
            FatalError: workers or the features app do not come up.
        """
        stage, group = self._stage, f"demo-{uuid.uuid4().hex[:8]}"
        stage.set()
        self._freshness = Freshness(stage.stream.with_fresh_values())
        self._quality = stage.quality_module.Quality(stage.stream.truth)
        self._workers = Workers(TOPOLOGY, stage.settings, group, self._options.workers)
        self._app = self._features_app(f"{group}-app") if self._options.fast else None
        self._judge = self._make_judge()
        self._feeder = self._make_feeder()
        self._progress("Starting the worker")
        self._judge.thread.start()
        self._ends.callback(self._judge.stop)
        self._workers.start()
        self._ends.callback(self._workers.stop)
        self._wait_for_the_group(group)
        if self._app is not None:
            self._wait_for_the_group(f"{group}-app")
        broken = stage.folder / "broken.parquet"
        broken_set = stage.stream.write_broken_features(broken)
        self.streamml = CommandLine(stage.settings, group)
        self.incident = Incident(self.streamml, TOPOLOGY, broken_set, broken, self._page)
        self._ends.callback(self.incident.end)
        self._books = Books(
            self._feeder,
            self._judge,
            self._quality,
            self._freshness,
            self._app,
            self.incident,
            self.faults,
            begun=time.time(),
        )
        self._feeder.thread.start()
        self._ends.callback(self._feeder.stop)

    def fault(self, name: str) -> None:
        """Do harm, or good.

        Args:
            name: ``kill`` a worker or the features ``app`` (SIGKILL), switch ``poison`` on or off (1 % of records), make it ``clean`` again,
                ``slow`` Redis for 3 s, load wrong ``features``; ``mend`` them, and score again what came meanwhile; ``publish`` the
                corrections.
        """
        if name in _OF_INCIDENT:
            _OF_INCIDENT[name](self.incident)
        elif name == "clean" or (name == "poison" and self._feeder.poisoning):
            self._feeder.poisoning = False
        elif name != "app" or self._app is not None:
            moment = time.time()
            self._do(name)
            self.faults.append(Fault(name, moment - self._books.begun, moment * 1000))

    def _do(self, name: str) -> None:
        match name:
            case "kill":
                self._workers.kill()
            case "poison":
                self._feeder.poisoning = True
            case "app" if self._app is not None:
                self._app.kill()
            case "slow":
                pause_redis(self._stage.settings.redis.url)

    def tick(self) -> None:
        """To be called some times a second: scripted faults, recovery times.

        Raises:
            StreamMLError: the workers have ended, or a step of an incident.
        """
        for error in (self._workers.crash, self.incident.error):
            if error is not None:
                raise error
        due = self._script.due(self.sent_share)
        if due is not None and self._may(due):
            self._script.done()
            self.fault(due)
        for fault in self.faults:
            if fault.recovered_s is None and self._judge.newest_ms > fault.moment_ms:
                fault.recovered_s = round(time.time() - fault.moment_ms / 1000, 2)

    def _may(self, name: str) -> bool:
        """Whether what is scripted makes sense now: features are mended when they have done harm, and fast ones are lost when they were fresh."""
        if name == "mend" and self._feeder.thread.is_alive() and not self._judge.verdict(under_way=True).wrong:
            return False
        if name == "app" and self._feeder.thread.is_alive() and not self._freshness.are_fresh(time.time()):
            return False
        return not self.incident.busy

    def end_stream(self) -> None:
        """Produce nothing more, and wait for no further step of an incident."""
        self._script.end()
        self.leaving = True
        self._feeder.stop()

    @property
    def sent_share(self) -> float:
        """How much of the stream is produced, 0 to 1."""
        return self._feeder.sent / max(1, self._feeder.total)

    @property
    def over(self) -> bool:
        """Whether every event has ended, and no incident is open.

        Raises:
            FatalError: nothing has moved for a minute.
        """
        if self._feeder.thread.is_alive():
            return False
        incident = self.incident
        if incident.busy or not self._script.ended or (incident.waits and not self.leaving):
            self._judge.progress_at = time.monotonic()
            return False
        verdict = self._judge.verdict()
        corrected = verdict.corrected >= incident.published.get("written", 0)
        if verdict.lost == 0 and not self._judge.undecided and corrected:
            self._ended_at = self._ended_at or time.time()
            return True
        if time.monotonic() - self._judge.progress_at > _PATIENCE_S:
            raise FatalError(f"Nothing has moved for {_PATIENCE_S:.0f} s, and {verdict.lost} events are open.")
        return False

    def snapshot(self) -> dict[str, Any]:
        """What can be said now, for a live view."""
        return {**self._books.snapshot(time.time()), "leaving": self.leaving}

    def finish(self) -> dict[str, Any]:
        """End the workers in good order; returns the summary."""
        self._feeder.stop()
        ended = self._ended_at or time.time()
        return self._books.summary(ended, self._workers.stop())

    def close(self) -> None:
        """End everything that is still there."""
        self._ends.close()

    def _features_app(self, group: str) -> FeaturesApp:
        """Start what keeps the recent features fresh."""
        self._progress("Starting the Faust app that follows the arrivals")
        settings = self._stage.settings
        self._arrivals = self._stage.stream_module.create_arrivals_topics(settings)
        places = {"STREAMML_BROKERS": settings.brokers, "STREAMML_REDIS_URL": settings.redis.url}
        module = f"{TOPOLOGY.replace('/', '.')}.features_app"
        app = FeaturesApp([sys.executable, "-m", module, "--group", group], places, self._freshness)
        app.start()
        self._ends.callback(app.stop)
        return app

    def _make_judge(self) -> Judge:
        topology, stream = self._stage.topology, self._stage.stream
        log: tuple[str, LogSchema, Explains] | None = None
        if self._app is not None and topology.feature_log is not None:
            log = topology.feature_log.topic, LogSchema(topology.feature_columns), stream.expected_with_recent()
        topics = topology.destination, topology.dead_letters.topic
        return Judge(self._stage.settings.brokers, *topics, stream.is_right, self._hear, log)

    def _hear(self, predictions: Sequence[Mapping[str, Any]]) -> None:
        self._quality.add(predictions)
        self._freshness.add(predictions)

    def _make_feeder(self) -> Feeder:
        stream = self._stage.stream
        arrivals = stream.arrivals_before() if self._app is not None else {}
        return Feeder(
            self._stage.settings.brokers,
            self._stage.topology.source.topics[0],
            stream.keys,
            stream.values,
            rate=self._options.rate,
            poison=self._stage.stream_module.poison,
            on_produced=self._judge.produced,
            beside={event: [(self._arrivals, *one) for one in records] for event, records in arrivals.items()},
        )

    def _wait_for_the_group(self, group: str) -> None:
        """Until its members have partitions, so that the first events do not wait for them."""
        admin, waiting = KafkaAdmin(self._stage.settings.client()), threading.Event()
        deadline = time.monotonic() + _PATIENCE_S
        while not admin.group_is_stable(group) and self._workers.crash is None:
            if time.monotonic() > deadline:
                raise FatalError(f"Nobody has joined group {group} within {_PATIENCE_S:.0f} s.")
            waiting.wait(0.1)
