"""A source on a broker in this process: one member of a consumer group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from streamml.adapters.memory.broker import MemoryBroker, StoredRecord
from streamml.batch.column import object_array
from streamml.errors import Fenced, SourceUnavailable
from streamml.ports.source import Positions, RecordRun, SourceListener, TopicPartition


class MemorySource:
    """Reads topics as a group member; see `streamml.ports.source.Source` for the contract."""

    def __init__(
        self,
        broker: MemoryBroker,
        topics: Sequence[str],
        group: str,
        start: Literal["earliest", "latest"],
        *,
        identity: str | None = None,
        keys: bool = True,
        headers: bool = False,
    ) -> None:
        """
        Args:
            topics: read together.
            group: consumer group.
            start: where a group that never committed begins.
            identity: name in the group; a second source of that name fences the first.
            keys, headers: whether runs carry these columns.
        """
        self._broker = broker
        self._topics = list(topics)
        self._group = broker.group(group)
        self._start = start
        self._identity = identity
        self._keys = keys
        self._headers = headers
        self._listener: SourceListener | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._paused = False

    def open(self, listener: SourceListener) -> None:
        """See `Source.open`. A group that never ran gets its start offsets committed first (promise D1)."""
        self._listener = listener
        with self._broker.lock():
            self._answering()
            if not self.committed():
                place = 0 if self._start == "earliest" else 1
                self._group.committed.update({where: marks[place] for where, marks in self.watermarks().items()})
            self._join()

    def poll(self, max_rows: int, timeout_s: float) -> list[RecordRun]:
        """See `Source.poll`."""
        self._broker.wait_for(lambda: self._broker.down is None, timeout_s)
        self._answering()
        self._rebalance()
        runs: list[RecordRun] = []

        def arrived() -> bool:
            runs.extend(self._read(max_rows))
            return bool(runs) or self._broker.down is not None or self._group.moving(self)

        self._broker.wait_for(arrived, timeout_s)
        return runs

    def commit(self, positions: Positions, *, wait: bool) -> None:
        """See `Source.commit`."""
        with self._broker.lock():
            self._unfenced()
            done = self._broker.down is None and self._group.commit(self, positions)
            self._broker.changed()
            if wait and not done:
                self._answering()
                raise SourceUnavailable("Not committed: this source is no member of its group any more.")

    @property
    def generation(self) -> int | None:
        """Number of the group's present generation; ``None`` while this source is no member."""
        return self._group.generation if self._group.has(self) else None

    def ends(self) -> Positions:
        """See `Source.ends`; in memory everything is shown."""
        return {}

    def failed_commits(self) -> list[TopicPartition]:
        """See `Source.failed_commits`; commits in memory are answered at once."""
        return []

    def pause(self) -> None:
        """See `Source.pause`."""
        self._paused = True

    def resume(self) -> None:
        """See `Source.resume`."""
        self._paused = False

    def committed(self) -> dict[TopicPartition, int]:
        """See `Source.committed`."""
        with self._broker.lock():
            self._answering()
            partitions = self._broker.partitions(self._topics)
            return {where: self._group.committed[where] for where in partitions if where in self._group.committed}

    def watermarks(self) -> dict[TopicPartition, tuple[int, int]]:
        """See `Source.watermarks`."""
        with self._broker.lock():
            self._answering()
            return {where: self._broker.marks(where) for where in self._broker.partitions(self._topics)}

    def joined(self) -> bool:
        """See `Source.joined`."""
        with self._broker.lock():
            return self._group.has(self)

    def lag(self) -> int:
        """See `Source.lag`."""
        with self._broker.lock():
            return sum(self._broker.marks(where)[1] - position for where, position in self._positions.items())

    def trouble(self) -> str | None:
        """See `Source.trouble`."""
        return self._broker.down

    def close(self) -> None:
        """See `Source.close`."""
        if self._positions and self._group.has(self):
            self._give_up(list(self._positions))
        with self._broker.lock():
            self._group.leave(self)
            self._broker.changed()

    def _answering(self) -> None:
        if self._broker.down is not None:
            raise SourceUnavailable(self._broker.down)

    def _unfenced(self) -> None:
        if self._group.fenced(self, self._identity):
            raise Fenced(f"Another source took over the identity {self._identity!r}.")

    def _join(self) -> None:
        self._group.join(self, self._broker.partitions(self._topics), self._identity)
        self._broker.changed()

    def _rebalance(self) -> None:
        """Hear of a lost membership, let go of what another member is to get, take what is free."""
        assert self._listener is not None, "open comes before poll"
        self._unfenced()
        if not self._group.has(self):
            self._listener.lost(list(self._positions))
            self._positions.clear()
            with self._broker.lock():
                self._join()
        with self._broker.lock():
            self._group.spread(self._broker.partitions(self._topics))
            going = self._group.to_release(self)
        if going:
            self._give_up(going)
        self._take()

    def _give_up(self, partitions: list[TopicPartition]) -> None:
        assert self._listener is not None
        positions = self._listener.revoking(partitions)
        with self._broker.lock():
            self.commit(positions, wait=False)
            self._group.release(self, partitions)
            for where in partitions:
                del self._positions[where]
            self._broker.changed()

    def _take(self) -> None:
        assert self._listener is not None
        with self._broker.lock():
            coming = self._group.to_take(self)
            self._group.take(self, coming)
            # A partition that came after the group began: all of it is new.
            starts = {where: self._group.committed.get(where, self._broker.marks(where)[0]) for where in coming}
            self._positions.update(starts)
        if starts:
            self._listener.assigned(starts)

    def _read(self, max_rows: int) -> list[RecordRun]:
        if self._paused or self._broker.down is not None or not self._group.has(self):
            return []
        runs: list[RecordRun] = []
        for where in list(self._positions):
            records = self._broker.read(where, self._positions[where], max_rows)
            if records:
                # Goes to the end, so that no partition waits for the others for ever.
                del self._positions[where]
                self._positions[where] = records[-1].offset + 1
                runs.append(self._run(where, records))
                max_rows -= len(records)
        return runs

    def _run(self, where: TopicPartition, records: list[StoredRecord]) -> RecordRun:
        count = len(records)
        return RecordRun(
            partition=where,
            offsets=np.fromiter((record.offset for record in records), np.int64, count),
            timestamps=np.fromiter((record.timestamp for record in records), np.int64, count),
            values=object_array((record.value for record in records), count),
            keys=object_array((record.key for record in records), count) if self._keys else None,
            headers=object_array((record.headers for record in records), count) if self._headers else None,
            size_bytes=sum(len(record.key or b"") + len(record.value or b"") for record in records),
            records=records,
        )
