"""Keeps the features ``airport_recent`` and ``carrier_recent`` fresh from the topic of arrivals: a Faust app.

``python -m topologies.flight_delay.features_app``. Broker and Redis are those of streamml's settings. docs/guide/faust.md says what is
Faust's part here, what is not, and why.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, Final, NoReturn

from streamml.cli.log import set_up
from streamml.cli.signals import GRACE_S, ended_by_signals, on_signals
from streamml.compose.identity import claim
from streamml.errors import ConfigError, FatalError, StreamMLError, place_of
from streamml.features import AsyncFeatureWriter
from streamml.ops.start import start
from streamml.ports.source import RawRecord, TopicPartition
from streamml.runtime.pulse import watched
from streamml.settings.settings import Settings
from topologies.flight_delay.arrivals_topic import ArrivalsTopic, Record, check_topics
from topologies.flight_delay.faust_client import broker_urls, credentials, session_s
from topologies.flight_delay.features_options import Options, read_options
from topologies.flight_delay.recent_follower import Follower
from topologies.flight_delay.recent_letters import DeadLetters
from topologies.flight_delay.recent_state import SETS
from topologies.flight_delay.recent_watch import Watch

_LOG: Final = logging.getLogger("streamml.features_app")
_AT_ONCE: Final = 4096
_FAR_BEHIND: Final = 500
_GATHERED_S: Final = 0.01
_QUIET_S: Final = 1.0
_CANCELLED_S: Final = 0.1
_LATEST_MS: Final = 2**63 - 1
_BEGUN: Final = -1
"""In place of an offset: the partition was given to this process."""


class App:
    """Faust brings the records, and says whose they are; the rest is `Follower`'s."""

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
        bury = DeadLetters(settings, options.dead_letters).bury
        self._where = TopicPartition(options.arrivals, 0)
        self._inbox: asyncio.Queue[Record | int] = asyncio.Queue(2 * _AT_ONCE)
        self.writers = {
            part: AsyncFeatureWriter(declared, url=settings.redis.url, writer=worker, options=settings.redis.options)
            for part, declared in SETS.items()
        }
        self._topic = partial(ArrivalsTopic, settings, options.arrivals, options.group, options.disorder)
        self._follower = Follower(self._topic(), self._where, topic_id, self.writers, bury, worker)
        self._ours = False
        self._committed: int | None = None
        self.faust.agent(arrivals, name="arrivals")(self._hear)
        # By mode's types no handler may name the argument that each of them gets.
        self.faust.on_partitions_assigned.connect(self._assigned)  # type: ignore[arg-type]
        self.faust.on_partitions_revoked.connect(self._revoked)  # type: ignore[arg-type]

    async def _hear(self, stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            # Faust keeps seconds in a float, which the largest of Kafka's times leave above what Kafka has.
            at = min(round(message.timestamp * 1000), _LATEST_MS)
            record = RawRecord(message.key, message.value, list(message.headers or ()), at)
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
            batch = await self._heard()
            if _BEGUN in batch:
                # What was read before is read again from the group's position on.
                batch = batch[len(batch) - batch[::-1].index(_BEGUN) :]
                self._committed = None
                await self._follower.begin()
                _LOG.info("Arrivals are followed from offset %s on.", self._follower.position)
            if self._ours:
                await self._follower.take([one for one in batch if isinstance(one, tuple)])
                await self._catch_up(_FAR_BEHIND if batch else 0)

    async def _heard(self) -> list[Record | int]:
        """What was handed over: as much as there is; nothing where nothing comes for a second."""
        try:
            # `wait_for` of Python 3.11 forgets that it was cancelled where a record comes at the same moment.
            async with asyncio.timeout(_QUIET_S):
                batch = [await self._inbox.get()]
        except TimeoutError:
            return []
        await asyncio.sleep(_GATHERED_S)
        while not self._inbox.empty() and len(batch) < _AT_ONCE:
            batch.append(self._inbox.get_nowait())
        return batch

    async def _catch_up(self, allowed: int) -> None:
        """Read what is more than so many offsets behind from the topic.

        Far behind, as after a restart, Faust would take a minute for what takes the topic's reader a second. And while nothing is handed
        over nothing may wait: records that come to a new group during a rebalance Faust may lose, and never fetch again.
        """
        consumer, position = self.faust.consumer, self._follower.position
        # A rebalance may have begun of which only the consumer's own thread has heard.
        end = consumer.highwater(self._where) if self._where in consumer.assignment() else None
        if position is None or end is None or end - position <= allowed:
            return
        from aiokafka.errors import IllegalStateError

        await self._follower.read_to(end)
        _LOG.info("Offsets %s to %s were read from the topic, as Faust did not hand them over.", position, end - 1)
        # A rebalance may have begun meanwhile. What is handed over again then is left out.
        with suppress(IllegalStateError):
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


async def serve(settings: Settings, options: Options, topic_id: str, worker: str) -> None:
    """Run until SIGTERM or Ctrl-C. What it cannot go on from ends the process, see `_give_up`.

    Raises:
        ConfigError: Faust has no counterpart of a setting.
    """
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    on_signals(lambda: loop.call_soon_threadsafe(stopped.set), settings.worker.drain_ms / 1000 + GRACE_S)
    async with AsyncExitStack() as ended:
        folder = tempfile.TemporaryDirectory(prefix="streamml-faust-", ignore_cleanup_errors=True)
        app = App(settings, options, topic_id, ended.enter_context(folder), worker)
        for writer in app.writers.values():
            await ended.enter_async_context(writer)
        ended.enter_context(watched(app.watch(options.stuck_after_s).live))
        try:
            await app.faust.start()
            # It is for tables, of which there are none; a process that is killed must not leave it behind.
            folder.cleanup()
            await _until(stopped, app, settings.worker.commit_interval_ms / 1000)
            await app.commit()
            await app.faust.stop()
        except Exception as error:  # noqa: BLE001  told, with an exit code, whatever it is
            folder.cleanup()
            _give_up(error)


async def _until(stopped: asyncio.Event, app: App, interval_s: float) -> None:
    async def commit() -> None:
        while True:
            await asyncio.sleep(interval_s)
            await app.commit()

    waits = (stopped.wait(), app.follow(), commit(), app.faust.wait_until_stopped())
    tasks = [asyncio.create_task(one) for one in waits]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for one in done:
        one.result()
    if not stopped.is_set():
        raise FatalError(f"Faust has ended ({app.faust.crash_reason!r}). Nothing is lost; start this again.")
    left = set(tasks)
    while left:
        # Again and again: what Faust and its libraries wait with in Python 3.11 may forget that it was cancelled.
        for one in left:
            one.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCELLED_S)


def _give_up(error: Exception) -> NoReturn:
    """End at once, as kill −9 would, from which everything is made up for.

    In good order it might never end: Faust's tasks go on when they are cancelled, and a write that Redis does not answer is tried again
    for half a minute.
    """
    if not isinstance(error, StreamMLError):
        place = place_of(error) or "a library"
        error = FatalError(f"{type(error).__name__} in {place}: {error}. Nothing is lost; start this again.")
    _tell(error)
    _end(error.exit_code)


def _tell(error: StreamMLError) -> None:
    for problem in error.problems if isinstance(error, ConfigError) else (str(error),):
        print(f"Error: {problem}", file=sys.stderr)


def _end(code: int) -> NoReturn:
    """The interpreter's own way out waits for threads of clients."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 stopped, 2 wrong use or settings, 3 fatal. A crash while it runs ends the process."""
    set_up(1)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S", level="WARNING")
    try:
        options, settings = read_options(arguments)
        with ended_by_signals():
            topic_id = start(
                partial(check_topics, settings, options.arrivals, options.dead_letters, create=options.create_topics)
            )
        identity = claim(settings.brokers, options.group, settings.worker_id)
        asyncio.run(serve(settings, options, topic_id, identity.name))
    except StreamMLError as error:
        _tell(error)
        return error.exit_code
    except KeyboardInterrupt:
        # It was stopped before it had begun.
        return 0
    return 0


if __name__ == "__main__":
    _end(main())
