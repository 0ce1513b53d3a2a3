"""The two sides of a comparison, read from the broker into tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.chunks import Chunk, Stretch, joined, read_chunks
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.ops.replay.predictions import NO_CHILD, PredictionReader, letter_table
from streamml.ops.replay.replay import Replay, Span
from streamml.ports.source import TopicPartition

Times = tuple[int, int]
"""First and last time of a run's records, ms since 1970 UTC."""

_SQL_TYPES: Final = {
    "number": "DOUBLE",
    "whole": "BIGINT",
    "truth": "BOOLEAN",
    "text": "VARCHAR",
    "vector": "DOUBLE[]",
    "other": "VARCHAR",
}
# The id of a topic may hold slashes, so an id is taken apart from its end.
_LAST: Final = "string_split(id, '/')[-1]"
_PLACE: Final = f"""
    left(id, length(id) - length({_LAST})) AS prefix,
    TRY_CAST(split_part({_LAST}, '#', 1) AS BIGINT) AS place,
    COALESCE(TRY_CAST(nullif(split_part({_LAST}, '#', 2), '') AS INTEGER), {NO_CHILD}) AS child"""
_INSERT: Final = """
    WITH named AS (
        SELECT *, CASE WHEN mark IS NULL THEN said_id ELSE split_part(mark, ';', 2) END AS id,
            CASE WHEN mark IS NULL THEN said_revision ELSE TRY_CAST(split_part(mark, ';', 4) AS BIGINT) END AS revision
        FROM arrived
    ), placed AS (SELECT *, {place} FROM named WHERE {revisions})
    INSERT INTO {name}
    SELECT topic_no, part, place, child, revision, key, ts, at_partition, at_offset, odd{values}
    FROM placed JOIN spans USING (prefix) WHERE place >= first AND place < behind"""
_INSERT_LETTERS: Final = """
    WITH placed AS (SELECT *, {place} FROM arrived)
    INSERT INTO {name}_all
    SELECT topic_no, part, place, child, there, step, error, at_offset
    FROM placed JOIN spans USING (prefix) WHERE place >= first AND place < behind"""
_DROP_LOWER: Final = """
    DELETE FROM {name} WHERE rowid IN (
        SELECT row FROM (
            SELECT rowid AS row, row_number() OVER (
                PARTITION BY topic_no, part, place, child ORDER BY revision DESC, at_offset DESC
            ) AS rank
            FROM {name} SEMI JOIN (
                SELECT topic_no, part, place, child FROM {name} GROUP BY ALL HAVING count(*) > 1
            ) USING (topic_no, part, place, child)
        ) WHERE rank > 1
    )"""


@dataclass(frozen=True, slots=True)
class Side:
    """Where one side's predictions and dead letters are.

    Args:
        topic, letters: of predictions and of dead letters; ``None``: no topic has the predictions.
        revision: the one that counts; ``None``: the highest ``below``.
        below: revisions from here on do not count.
        bounded: whether only a part of the topics is of the run, as of live ones.
    """

    topic: str | None
    letters: str
    revision: int | None
    below: int
    bounded: bool

    @property
    def revisions(self) -> str:
        return f"revision = {self.revision}" if self.revision is not None else f"revision < {self.below}"


@dataclass(slots=True)
class Loader:
    """Reads topics into tables. ``progress`` hears how many records were read, from time to time."""

    connection: Any
    client: Mapping[str, Any]
    replay: Replay
    reader: PredictionReader
    progress: Callable[[int], None]
    notes: list[str] = field(default_factory=list)
    _read: int = 0

    def spans(self) -> None:
        """The table ``spans``: what of which topic and partition was replayed."""
        self.connection.execute(
            "CREATE TABLE spans (prefix VARCHAR, topic_no TINYINT, part INTEGER, first BIGINT, behind BIGINT)"
        )
        topics = sorted({span.topic for span in self.replay.spans})
        rows = [
            (
                f"{self.replay.topic_ids.get(span.topic, span.topic)}/{span.partition}/",
                topics.index(span.topic),
                span.partition,
                span.start,
                span.end,
            )
            for span in self.replay.spans
        ]
        self.connection.executemany("INSERT INTO spans VALUES (?, ?, ?, ?, ?)", rows)

    def times(self) -> Times | None:
        """Within what times the run's records are; ``None`` where the broker does not have all of them any more."""
        low, high = np.iinfo(np.int64).max, np.iinfo(np.int64).min
        for topic, spans in _by_topic(self.replay.spans).items():
            expected = {span.partition: span.start for span in spans}
            stretch = Stretch(expected, {span.partition: span.end for span in spans})
            if not self._still_has(topic, spans):
                return None
            for chunk in self._chunks(topic, stretch):
                times = chunk.timestamps()
                low, high = min(low, int(times.min())), max(high, int(times.max()))
        return (low, high) if 0 < low <= high else None

    def _still_has(self, topic: str, spans: Iterable[Span]) -> bool:
        found = KafkaAdmin(self.client).find_topics([topic]).topics.get(topic)
        if found is None or found.id != self.replay.topic_ids.get(topic, found.id):
            return False
        bounds = KafkaOffsets(self.client).bounds(TopicPartition(topic, span.partition) for span in spans)
        return all(
            bounds[TopicPartition(topic, span.partition)][0] <= span.start for span in spans if span.start < span.end
        )

    def predictions(self, name: str, side: Side, times: Times | None) -> None:
        """The table ``name`` of a side's predictions of the run's records: the one that counts of each id."""
        columns = "".join(f", {one.column} {_SQL_TYPES[one.kind]}" for one in self.reader.fields)
        self.connection.execute(
            f"CREATE TABLE {name} (topic_no TINYINT, part INTEGER, place BIGINT, child INTEGER, revision BIGINT, "
            f"key BLOB, ts BIGINT, at_partition INTEGER, at_offset BIGINT, odd BLOB{columns})"
        )
        values = "".join(f", {one.column}" for one in self.reader.fields)
        insert = _INSERT.format(name=name, values=values, revisions=side.revisions, place=_PLACE)
        for chunk in () if side.topic is None else self._of_times(side.topic, side, times):
            self.connection.register("arrived", self.reader.table(chunk))
            self.connection.execute(insert)
            self.connection.unregister("arrived")
        self.connection.execute(_DROP_LOWER.format(name=name))

    def letters(self, name: str, side: Side, times: Times | None) -> None:
        """The table ``name`` of a side's dead letters of the run's records, the latest of each id."""
        self.connection.execute(
            f"CREATE TABLE {name}_all (topic_no TINYINT, part INTEGER, place BIGINT, child INTEGER, there BOOLEAN, "
            "step VARCHAR, error VARCHAR, at_offset BIGINT)"
        )
        for chunk in self._of_times(side.letters, side, times, tombstones=True):
            self.connection.register("arrived", letter_table(chunk))
            self.connection.execute(_INSERT_LETTERS.format(name=name, place=_PLACE))
            self.connection.unregister("arrived")
        self.connection.execute(
            f"CREATE TABLE {name} AS SELECT topic_no, part, place, child, arg_max(step, at_offset) AS step, "
            f"arg_max(error, at_offset) AS error FROM {name}_all GROUP BY ALL HAVING arg_max(there, at_offset)"
        )
        self.connection.execute(f"DROP TABLE {name}_all")

    def _of_times(self, topic: str, side: Side, times: Times | None, *, tombstones: bool = False) -> Iterator[Chunk]:
        bounded = side.bounded and times is not None and self._keeps_times(topic)
        if not bounded or times is None:
            yield from self._chunks(topic, Stretch())
            return
        low, high = times
        for chunk in self._chunks(topic, Stretch(since_ms=low)):
            stamps = chunk.timestamps()
            inside = (stamps >= low) & (stamps <= high)
            if tombstones:
                inside |= np.fromiter((value is None for value in chunk.values()), bool, len(chunk))
            if inside.all():
                yield chunk
            elif inside.any():
                yield chunk.where(inside)

    def _keeps_times(self, topic: str) -> bool:
        """Whether a topic's records have the times that producers gave them, here those of the source's records."""
        found = KafkaAdmin(self.client).find_topics([topic]).topics.get(topic)
        if found is None or found.timestamp_type == "CreateTime":
            return True
        self.notes.append(
            f"All of {topic} was read: "
            + (
                "its records have the time at which the broker wrote them (message.timestamp.type)."
                if found.timestamp_type
                else "this client may not see whose time its records have; the right DESCRIBE_CONFIGS would bound it."
            )
        )
        return False

    def _chunks(self, topic: str, stretch: Stretch) -> Iterator[Chunk]:
        for chunk in joined(read_chunks(self.client, topic, stretch)):
            self._read += len(chunk)
            self.progress(self._read)
            yield chunk


def _by_topic(spans: Iterable[Span]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for span in spans:
        found.setdefault(span.topic, []).append(span)
    return found


def first_time(connection: Any) -> int | None:
    """The time of the earliest row of a run, ms since 1970 UTC; ``None``: it has no row, or one without a time."""
    found = connection.execute("SELECT min(ts) FROM run").fetchone()[0]
    return None if found is None or found < 0 else int(found)
