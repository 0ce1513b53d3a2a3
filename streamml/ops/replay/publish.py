"""The predictions of a run as corrections where the live predictions are: in their topic, in Redis, or in both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.chunks import Chunk, Stretch, joined, read_chunks
from streamml.adapters.kafka.copying import KafkaCopy
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.adapters.redis.latest_copy import LatestCopy
from streamml.batch.microbatch import Int
from streamml.clock import SystemClock
from streamml.compose.assemble import latest_writer
from streamml.errors import ConfigError
from streamml.ops.replay.compare import CompareOptions, matched
from streamml.ops.replay.comparison import Counts
from streamml.ops.replay.database import MEMORY_MB
from streamml.ops.replay.latest import Newest, id_said
from streamml.ops.replay.predictions import PredictionReader
from streamml.ops.replay.registry import find, record
from streamml.ops.replay.replay import Replay
from streamml.ops.replay.sides import first_time
from streamml.ports.sink import OutboundRecords
from streamml.ports.source import TopicPartition
from streamml.settings.settings import Settings
from streamml.topology.topology import Topology

_BLOCK_ROWS: Final = 10_000
_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """What is published, and how.

    Args:
        changed_only: leave out rows that are the same as before.
        only_latest_per_key: leave out rows that are not the newest of their key by source time.
        rate: most rows a second; ``None``: as fast as it goes.
        unfinished: also of a run that is not done.
        tolerance: what is the same, see `CompareOptions`.
        memory_mb: of the database.
        progress: hears how many records were read, and then how many were published.
    """

    changed_only: bool = False
    only_latest_per_key: bool = False
    rate: float | None = None
    unfinished: bool = False
    tolerance: float = 1e-6
    memory_mb: int = MEMORY_MB
    progress: Callable[[str, int], None] = lambda what, count: None

    @property
    def selection(self) -> str:
        """The choice in words, as it is kept with the positions."""
        chosen = [
            *([f"changed-only within {self.tolerance:g}"] if self.changed_only else []),
            *(["only-latest-per-key"] if self.only_latest_per_key else []),
        ]
        return ", ".join(chosen) or "all"


@dataclass(frozen=True, slots=True)
class Publication:
    """What is to be published, or was.

    Args:
        run: number of the run, the revision of what is published.
        topic: of the live predictions, or ``redis:NAME`` where they have none.
        counts: of the run against the live predictions; ``None`` where nothing is left and nobody looked, or they are in Redis
            alone.
        selection: in words.
        chosen: rows that are to be published in all; those that an earlier try has published are among them.
        left: of them those that are not published yet.
        written: rows that this call wrote.
        overtaken: rows that this call left out because a newer prediction of their key came meanwhile.
        complete: whether everything that was chosen is in the topic.
    """

    run: int
    topic: str
    selection: str
    counts: Counts | None = None
    chosen: int = 0
    left: int = 0
    written: int = 0
    overtaken: int = 0
    complete: bool = False

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


class Publisher:
    """Publishes one run. Use it once, in a ``with``: `open` ▸ `plan` ▸ `write`."""

    def __init__(self, topology: Topology, settings: Settings, run: Replay, options: PublishOptions) -> None:
        self._topology = topology
        self._settings = settings
        self._run = run
        self._options = options
        self._group = f"{settings.group or topology.name}.replay.{run.number}.publish"
        self._reader = PredictionReader(topology)
        self._chosen: dict[int, Int] = {}
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._newest: Newest | None = None
        kept = topology.redis_sink
        self._latest = None if kept is None else LatestCopy(latest_writer(kept, settings), kept.name)
        self.plan = Publication(run.number, topology.destination, options.selection)

    @staticmethod
    @contextmanager
    def open(topology: Topology, settings: Settings, run: Replay, options: PublishOptions) -> Iterator[Publisher]:
        """Look at everything; nothing is written. ``plan`` says what `write` would do.

        Raises:
            ConfigError: the run cannot be published so; with every problem.
            SourceUnavailable: the broker does not answer.
        """
        made = Publisher(topology, settings, run, options)
        made._check()
        made._look_at_positions()
        if made.plan.complete:
            yield made
            return
        compare = CompareOptions(
            tolerance=options.tolerance,
            memory_mb=options.memory_mb,
            progress=lambda count: options.progress("read", count),
        )
        with made._latest or nullcontext(), matched(topology, settings, run, compare) as found:
            made._choose(found.connection, found.counts)
            yield made

    # -- what is there

    def _check(self) -> None:
        run, topic = self._run, self._topology.sink.topic
        problems = self._redis_problems() if topic is None else []
        if run.topology != self._topology.name:
            problems.append(f"Run {run.number} is of the topology {run.topology}, and not of {self._topology.name}.")
        if run.into == topic:
            problems.append(f"Run {run.number} wrote into {topic} itself; there is nothing to publish.")
        if run.state != "done" and not self._options.unfinished:
            problems.append(
                f"Run {run.number} is {run.state}, and not done: `streamml replay resume` finishes it. What it has so far is "
                "published with --unfinished."
            )
        found = KafkaAdmin(self._settings.client()).topics([run.into, *([topic] if topic else [])])
        for name, what in ((run.into, "of the run"), (topic, "of the live predictions")):
            if name is not None and name not in found:
                problems.append(f"The topic {name} {what} is gone; there is nothing to publish from, or into.")
        if problems:
            raise ConfigError(problems)

    def _redis_problems(self) -> list[str]:
        """What needs more than the latest prediction of each key."""
        found: list[str] = []
        if self._options.changed_only:
            found.append(
                "What a run changed is not known, as Redis keeps no past predictions; leave --changed-only out."
            )
        if self._options.only_latest_per_key:
            found.append("Redis keeps the newest prediction of each key by itself; leave --only-latest-per-key out.")
        return found

    def _look_at_positions(self) -> None:
        offsets = KafkaOffsets(self._settings.client())
        places = offsets.partitions([self._run.into])
        bounds, committed = offsets.bounds(places), offsets.committed(self._group, places)
        for one in committed.values():
            if one.topic_id != self._options.selection:
                raise ConfigError(
                    f"Run {self._run.number} was published, or begun to be, with the choice '{one.topic_id}', and not "
                    f"'{self._options.selection}'. Go on with the same options; a new run has a revision of its own, and can be "
                    "published otherwise."
                )
        # What a run that is not done writes from now on is not among the rows to choose from.
        self._ends = self._ends or {where.partition: high for where, (_, high) in bounds.items()}
        self._starts = {
            where.partition: committed[where].offset if where in committed else low
            for where, (low, _) in bounds.items()
        }
        complete = all(self._starts[number] >= end for number, end in self._ends.items())
        # A broker forgets positions with their topic, and after a week: then the record of the run is what is left.
        self.plan = replace(self.plan, complete=complete if committed else self._run.published_ms is not None)

    # -- what is chosen

    def _choose(self, connection: Any, counts: Counts) -> None:
        where = ["at_offset IS NOT NULL"]
        if self._options.changed_only:
            where.append("status <> 'same'")
        if self._options.only_latest_per_key:
            self._newest = Newest(connection, self._settings.client(), self.plan.topic, self._reader, self._run.number)
            self._newest.choose(first_time(connection))
            where.append("(at_partition, at_offset) IN (SELECT (at_partition, at_offset) FROM newest_places)")
        condition = " AND ".join(where)
        for number in self._ends:
            found = connection.execute(
                f"SELECT at_offset FROM pairs WHERE at_partition = {number} AND {condition} ORDER BY at_offset"
            )
            self._chosen[number] = np.asarray(found.fetchnumpy()["at_offset"], np.int64)
        chosen = sum(map(len, self._chosen.values()))
        left = sum(int((places >= self._starts[number]).sum()) for number, places in self._chosen.items())
        live = None if self._topology.sink.topic is None else counts
        self.plan = replace(self.plan, counts=live, chosen=chosen, left=left)

    # -- writing

    def write(self) -> Publication:
        """Publish what is left of the plan.

        Raises:
            SinkUnavailable, SourceUnavailable: the broker does not answer; doing it again goes on from there.
            Fenced: somebody else publishes the run at the same time, and goes on.
            FatalError: the broker refuses a record, or this client.
        """
        if self.plan.complete:
            return self.plan
        exactly_once = self._settings.worker.processing_guarantee == "exactly_once"
        copy = KafkaCopy(self._settings.producer(), self._group, self._options.selection, exactly_once=exactly_once)
        copy.open()
        if self._latest is not None:
            self._latest.open()
        # Whoever published at the same time has ended now, and may have come farther than when the plan was made.
        self._look_at_positions()
        if self.plan.complete:
            return self.plan
        pace = _Pace(self._options.rate)
        written = overtaken = 0
        for chunk in self._blocks():
            rows, late = self._write(copy, chunk)
            written, overtaken = written + rows, overtaken + late
            self._options.progress("published", written)
            pace.after(rows)
        copy.write(OutboundRecords(self.plan.topic, [], [], [], []), self._behind(self._ends))
        self._note()
        self.plan = replace(self.plan, left=0, written=written, overtaken=overtaken, complete=True)
        return self.plan

    def _blocks(self) -> Iterator[Chunk]:
        """What is left, chosen rows only, in blocks that take about a second at most."""
        most = _BLOCK_ROWS if self._options.rate is None else max(1, min(_BLOCK_ROWS, int(self._options.rate)))
        chunks = read_chunks(self._settings.client(), self._run.into, Stretch(self._starts, self._ends))
        return joined((part for chunk in chunks for part in chunk.where(self._is_chosen(chunk)).pieces(most)), most)

    def _is_chosen(self, chunk: Chunk) -> Any:
        partitions, offsets = chunk.partitions(), chunk.offsets()
        chosen = np.zeros(len(chunk), bool)
        for number in np.unique(partitions).tolist():
            here = partitions == number
            chosen[here] = np.isin(offsets[here], self._chosen[number], assume_unique=True)
        return chosen

    def _write(self, copy: KafkaCopy, block: Chunk) -> tuple[int, int]:
        """Write a block; returns how many rows were written and left out."""
        positions = self._behind(_behind_last(block))
        for _ in range(_TRIES):
            kept = self._not_overtaken(block)
            records = OutboundRecords(
                self.plan.topic, kept.keys(), kept.values(), kept.headers(), kept.timestamps().tolist()
            )
            if self._latest is not None:
                self._latest.write(records)
            if self._topology.sink.topic is None:
                records = OutboundRecords(self.plan.topic, [], [], [], [])
            if copy.write(records, positions, None if self._newest is None else partial(self._still, kept)):
                return len(kept), len(block) - len(kept)
        # Somebody corrects the same keys without end; the next block may fare better, and these rows are older for good.
        copy.write(OutboundRecords(self.plan.topic, [], [], [], []), positions)
        return 0, len(block)

    def _not_overtaken(self, block: Chunk) -> Chunk:
        if self._newest is None:
            return block
        self._newest.catch_up()
        return block.where(~self._overtaken(block))

    def _still(self, kept: Chunk) -> bool:
        """Whether nothing newer came before these records; what came behind them is read behind them."""
        assert self._newest is not None
        self._newest.catch_up()
        return not self._overtaken(kept).any()

    def _overtaken(self, block: Chunk) -> Any:
        assert self._newest is not None
        rows = self._reader.table(block).select(["key", "ts", "mark", "said_id"]).to_pylist()
        found = (self._newest.overtaken(row["key"], row["ts"], id_said(row["mark"], row["said_id"])) for row in rows)
        return np.fromiter(found, bool, len(block))

    def _behind(self, ends: dict[int, int]) -> dict[TopicPartition, int]:
        return {TopicPartition(self._run.into, number): end for number, end in ends.items()}

    def _note(self) -> None:
        """Keep with the run that it is published."""
        group = self._settings.group or self._topology.name
        latest = find(self._settings, group, self._run.number)
        record(self._settings, group, replace(latest, published_ms=int(SystemClock().now() * 1000)))


def _behind_last(block: Chunk) -> dict[int, int]:
    partitions, offsets = block.partitions(), block.offsets()
    return {number: int(offsets[partitions == number].max()) + 1 for number in np.unique(partitions).tolist()}


class _Pace:
    """Waits so that rows do not go out faster than a rate."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._began = time.monotonic()
        self._rows = 0

    def after(self, rows: int) -> None:
        """So many more went out."""
        self._rows += rows
        if self._rate is not None:
            ahead = self._rows / self._rate - (time.monotonic() - self._began)
            if ahead > 0:
                threading.Event().wait(min(ahead, threading.TIMEOUT_MAX))
