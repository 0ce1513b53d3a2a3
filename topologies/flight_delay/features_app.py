"""Keeps the features ``airport_recent`` and ``carrier_recent`` fresh from the topic of arrivals: a Faust app.

``python -m topologies.flight_delay.features_app``. Broker and Redis are those of streamml's settings. docs/guide/faust.md says what is
Faust's part here, what is not, and why.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from streamml.cli.log import set_up
from streamml.cli.signals import GRACE_S, on_signals
from streamml.compose.identity import claim
from streamml.engine.dead_letters import Letter
from streamml.errors import ConfigError, FatalError, StreamMLError
from streamml.features import AsyncFeatureWriter
from streamml.ports.source import RawRecord, TopicPartition
from streamml.runtime.pulse import watched
from streamml.settings.settings import Settings
from streamml.settings.sources import read_settings
from streamml.topology.duration import seconds
from topologies.flight_delay.arrivals_topic import ARRIVALS, DEAD_LETTERS, ArrivalsTopic, Record, check_topics
from topologies.flight_delay.faust_client import broker_urls, credentials, session_s
from topologies.flight_delay.recent_follower import Follower
from topologies.flight_delay.recent_state import SETS
from topologies.flight_delay.recent_watch import Watch

GROUP: Final = "flight-delay-features"
_LOG: Final = logging.getLogger("streamml.features_app")
_AT_ONCE: Final = 4096
_FAR_BEHIND: Final = 500
_GATHERED_S: Final = 0.01
_BEGUN: Final = -1
"""In place of an offset: the partition was given to this process."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is this app's own; the rest is streamml's settings.

    Args:
        arrivals, dead_letters: topics.
        group: consumer group.
        disorder: how much later than the latest before it an arrival may come and cost nothing; later ones count as well, and cost a
            look back into the topic.
        stuck_after_s: this long without progress while arrivals wait ends the process.
        create_topics: whether to make what is missing.
    """

    arrivals: str = ARRIVALS
    dead_letters: str = DEAD_LETTERS
    group: str = GROUP
    disorder: timedelta = timedelta(hours=1)
    stuck_after_s: float = 60.0
    create_topics: bool = False


class App:
    """Faust brings the records and the dead letters; the rest is `Follower`'s."""

    def __init__(self, settings: Settings, options: Options, topic_id: str, folder: str, worker: str) -> None:
        import faust

        self.faust: Any = faust.App(
            options.group,
            broker=broker_urls(settings),
            broker_credentials=credentials(settings),
            broker_session_timeout=session_s(settings),
            broker_heartbeat_interval=min(3.0, session_s(settings) / 4),
            broker_client_id=f"streamml-features-{worker}",
            consumer_group_instance_id=worker,
            consumer_auto_offset_reset="earliest",
            datadir=folder,
            store="memory://",
            stream_buffer_maxsize=_AT_ONCE,
            TableManager="topologies.flight_delay.faust_tables.NoTables",
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
        )
        raw: dict[str, Any] = {
            "key_type": bytes,
            "value_type": bytes,
            "key_serializer": "raw",
            "value_serializer": "raw",
        }
        # Positions are committed here: by its own book Faust may commit past what it skipped in a rebalance.
        arrivals = self.faust.topic(options.arrivals, acks=False, **raw)
        self._letters: Any = self.faust.topic(options.dead_letters, **raw)
        self._where = TopicPartition(options.arrivals, 0)
        self._inbox: asyncio.Queue[Record | int] = asyncio.Queue(2 * _AT_ONCE)
        self.writers = {
            part: AsyncFeatureWriter(declared, url=settings.redis.url, writer=worker, options=settings.redis.options)
            for part, declared in SETS.items()
        }
        self._topic = partial(ArrivalsTopic, settings, options.arrivals, options.group, options.disorder)
        self._follower = Follower(self._topic(), self._where, topic_id, self.writers, self._bury, worker)
        self._ours = False
        self._committed: int | None = None
        self.faust.agent(arrivals, name="arrivals")(self._hear)
        # By mode's types no handler may name the argument that each of them gets.
        self.faust.on_partitions_assigned.connect(self._assigned)  # type: ignore[arg-type]
        self.faust.on_partitions_revoked.connect(self._revoked)  # type: ignore[arg-type]

    async def _hear(self, stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            record = RawRecord(message.key, message.value, list(message.headers or ()), round(message.timestamp * 1000))
            await self._inbox.put((message.offset, record))

    async def _assigned(self, app: Any, assigned: Any, **_: Any) -> None:
        self._ours = self._where in assigned
        if self._ours:
            await self._inbox.put(_BEGUN)

    async def _revoked(self, app: Any, revoked: Any, **_: Any) -> None:
        self._ours = False

    @property
    def position(self) -> int | None:
        """Next offset; ``None`` where the partition is somebody else's, or is not read in yet."""
        return self._follower.position if self._ours else None

    async def follow(self) -> None:
        """Take what comes, for ever: as much at once as came meanwhile.

        Raises:
            StreamMLError: broker or Redis do not answer.
        """
        while True:
            batch = [await self._inbox.get()]
            await asyncio.sleep(_GATHERED_S)
            while not self._inbox.empty() and len(batch) < _AT_ONCE:
                batch.append(self._inbox.get_nowait())
            if _BEGUN in batch:
                # What was read before is read again from the group's position on.
                batch = batch[len(batch) - batch[::-1].index(_BEGUN) :]
                self._committed = None
                await self._follower.begin()
                _LOG.info("Arrivals are followed from offset %s on.", self._follower.position)
            if self._ours:
                await self._follower.take([one for one in batch if isinstance(one, tuple)])
                await self._catch_up()

    async def _catch_up(self) -> None:
        """Far behind, as after a restart, Faust would take a minute for what takes the topic's reader a second."""
        consumer, position = self.faust.consumer, self._follower.position
        # A rebalance may have begun of which only the consumer's own thread has heard.
        end = consumer.highwater(self._where) if self._where in consumer.assignment() else None
        if position is None or end is None or end - position <= _FAR_BEHIND:
            return
        await self._follower.read_to(end)
        await consumer.seek_wait({self._where: end})

    async def commit(self) -> None:
        """Commit what was written since the last time."""
        position = self.position
        if position is None or position == self._committed:
            return
        # What Faust's own commits end in. Fenced by the group's generation: a member that was given up commits nothing.
        if await self.faust.consumer._commit({self._where: position}):
            self._committed = position

    def watch(self, patience_s: float) -> Watch:
        """What ends this process when it stands still. It has a connection of its own."""
        return Watch(lambda: self.position, self._topic(), patience_s)

    async def _bury(self, letters: Sequence[Letter]) -> None:
        sent = [
            await self._letters.send(
                key=one.key, value=one.value, headers=one.headers, timestamp=_seconds(one.timestamp)
            )
            for one in letters
        ]
        for one in sent:
            await one


async def serve(settings: Settings, options: Options, topic_id: str, worker: str) -> None:
    """Run until SIGTERM or Ctrl-C.

    Raises:
        StreamMLError: it cannot go on; whoever supervises it starts it again.
    """
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    on_signals(lambda: loop.call_soon_threadsafe(stopped.set), settings.worker.drain_ms / 1000 + GRACE_S)
    async with AsyncExitStack() as ended:
        folder = ended.enter_context(tempfile.TemporaryDirectory(prefix="streamml-faust-"))
        app = App(settings, options, topic_id, folder, worker)
        for writer in app.writers.values():
            await ended.enter_async_context(writer)
        ended.enter_context(watched(app.watch(options.stuck_after_s).live))
        await app.faust.start()
        await _until(stopped, app, settings.worker.commit_interval_ms / 1000)
        await app.commit()
        await app.faust.stop()


async def _until(stopped: asyncio.Event, app: App, interval_s: float) -> None:
    async def commit() -> None:
        while True:
            await asyncio.sleep(interval_s)
            await app.commit()

    waits = (stopped.wait(), app.follow(), commit(), app.faust.wait_until_stopped())
    tasks = [asyncio.create_task(one) for one in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
        if not stopped.is_set():
            raise FatalError(f"Faust has ended ({app.faust.crash_reason!r}). Nothing is lost; start this again.")
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.wait(tasks)


def _seconds(timestamp_ms: int) -> float | None:
    """As Faust takes it, which cuts what is behind the millisecond off again."""
    return (timestamp_ms + 0.5) / 1000 if timestamp_ms > 0 else None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 stopped, 2 wrong use or settings, 3 fatal."""
    set_up(1)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S", level="WARNING")
    try:
        options, settings = _read(arguments)
        topic_id = check_topics(settings, options.arrivals, options.dead_letters, create=options.create_topics)
        identity = claim(settings.brokers, options.group, settings.worker_id)
        asyncio.run(serve(settings, options, topic_id, identity.name))
    except ConfigError as error:
        for problem in error.problems:
            print(f"Error: {problem}", file=sys.stderr)
        return error.exit_code
    except StreamMLError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _read(arguments: Sequence[str] | None) -> tuple[Options, Settings]:
    usual = Options()
    parser = argparse.ArgumentParser(prog="python -m topologies.flight_delay.features_app", description=__doc__)
    parser.add_argument("--brokers", help="host:port of brokers, separated by commas")
    parser.add_argument("--redis-url", help="Redis that has the features")
    parser.add_argument("--group", default=usual.group, help="consumer group; default: %(default)s")
    parser.add_argument("--topic", default=usual.arrivals, help="arrivals, in one partition; default: %(default)s")
    parser.add_argument("--dead-letters", default=usual.dead_letters, help="topic; default: %(default)s")
    parser.add_argument("--disorder", default="1h", help="how late arrivals may usually come; default: %(default)s")
    parser.add_argument("--stuck-after", default="60s", help="end without progress for so long; default: %(default)s")
    parser.add_argument("--create-topics", action="store_true", help="make the topics that are missing")
    given = parser.parse_args(arguments)
    problems = []
    spans = {}
    for name in ("disorder", "stuck_after"):
        try:
            spans[name] = seconds(getattr(given, name))
        except ValueError as error:
            problems.append(f"--{name.replace('_', '-')}: {error}")
    if problems:
        raise ConfigError(problems)
    settings = read_settings({"brokers": given.brokers, "redis.url": given.redis_url}).settings
    disorder = timedelta(seconds=spans["disorder"])
    return Options(
        given.topic, given.dead_letters, given.group, disorder, spans["stuck_after"], given.create_topics
    ), settings


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # The interpreter's own way out waits for threads of clients.
    os._exit(code)
