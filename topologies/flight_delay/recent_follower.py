"""Keeps the streaming sets up with the topic of arrivals, whoever hands the records over and whatever is left out or repeated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from streamml.batch.outcome import Failure
from streamml.engine.dead_letters import Letter, compose_letter
from streamml.features import AsyncFeatureWriter
from streamml.ports.source import TopicPartition
from topologies.flight_delay.arrivals import Arrival
from topologies.flight_delay.arrivals_topic import ArrivalsTopic, Record, time_of
from topologies.flight_delay.recent_state import NotAnArrival, Part, RecentState, Touched, read_arrival

STEP: Final = "recent"
_PIECE: Final = 5_000

Bury = Callable[[Sequence[Letter]], Awaitable[None]]


class Follower:
    """Reads arrivals in, writes values out. `position` moves when both sets and the dead letters have what it stands behind.

    The windows are a function of the records before `position`, and of nothing else: they are read from the topic at the beginning, and
    where what is handed over leaves something out. Nothing is kept anywhere, so that nothing can be behind or ahead of the offsets.
    """

    def __init__(
        self,
        topic: ArrivalsTopic,
        where: TopicPartition,
        topic_id: str,
        writers: Mapping[Part, AsyncFeatureWriter],
        bury: Bury,
        worker: str,
    ) -> None:
        """
        Args:
            topic_id: of the arrivals' topic; dead letters are keyed by it.
            bury: returns when the broker has these dead letters.
            worker: who writes them.
        """
        self._topic = topic
        self._where = where
        self._topic_id = topic_id
        self._writers = writers
        self._bury = bury
        self._worker = worker
        self._state = RecentState()
        self.position: int | None = None

    async def begin(self) -> None:
        """The partition is ours: read the windows of the group's position, and write what they say.

        What is there already changes nothing; what a process did not get to write before it died is made up for.

        Raises:
            SourceUnavailable, OffsetOutOfRange, FeaturesUnavailable: broker or Redis do not answer.
        """
        self.position = None
        offset = await asyncio.to_thread(self._topic.committed)
        self._state = await asyncio.to_thread(self._topic.state_at, offset)
        await self._write(self._state.complete)
        self.position = offset

    async def take(self, records: Sequence[Record]) -> None:
        """The next records, in their order; those that were taken before are left out, those that are missing are read.

        Raises:
            SourceUnavailable, OffsetOutOfRange, FeaturesUnavailable: broker or Redis do not answer; nothing is behind `position` that was
                not written.
        """
        if self.position is None:
            return
        fresh = [one for one in records if one[0] >= self.position]
        if not fresh:
            return
        end = fresh[-1][0] + 1
        if len(fresh) != end - self.position:
            fresh = await asyncio.to_thread(self._read, self.position, end)
        await self._advance(fresh, end)

    async def read_to(self, end: int) -> None:
        """What is in the topic up to, without, ``end``, by ourselves: many times faster than any framework hands it over.

        Raises:
            SourceUnavailable, OffsetOutOfRange, FeaturesUnavailable: as `take`.
        """
        while self.position is not None and self.position < end:
            start, upto = self.position, min(self.position + _PIECE, end)
            await self._advance(await asyncio.to_thread(self._read, start, upto), upto)

    def _read(self, start: int, end: int) -> list[Record]:
        return list(self._topic.between(start, end))

    async def _advance(self, records: Sequence[Record], end: int) -> None:
        arrivals, letters = self._sorted(records)
        touched = self._state.add(arrivals)
        if (floor := self._state.lacks(touched)) is not None:
            await self._read_again(end, floor)
        await asyncio.gather(self._bury(letters), self._write(touched))
        self.position = end

    async def _read_again(self, offset: int, floor: datetime) -> None:
        """An arrival that is later than the allowed disorder: its window begins before what was read."""
        self._state = await asyncio.to_thread(self._topic.state_at, offset, floor)

    def _sorted(self, records: Sequence[Record]) -> tuple[list[Arrival], list[Letter]]:
        arrivals: list[Arrival] = []
        letters: list[Letter] = []
        for offset, record in records:
            if record.value is None:
                # A tombstone is not poison, and says nothing of an arrival.
                continue
            try:
                arrivals.append(read_arrival(record.value, time_of(record)))
            except NotAnArrival as error:
                failure = Failure(STEP, type(error).__name__, str(error))
                id = f"{self._topic_id}/{self._where.partition}/{offset}"
                letters.append(
                    compose_letter(failure, record, self._where, offset, id, worker=self._worker, now=time.time())
                )
        return arrivals, letters

    async def _write(self, touched: Touched) -> None:
        await asyncio.gather(
            *(
                self._writers[part].write(self._state.columns(part, entities))
                for part, entities in touched.items()
                if entities
            )
        )
