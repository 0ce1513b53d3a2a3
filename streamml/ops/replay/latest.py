"""Which predictions are the newest of their key, so that a correction never stands behind a newer prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamml.adapters.kafka.chunks import Chunk, Stretch, joined, read_chunks
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.errors import ConfigError
from streamml.ops.replay.predictions import NO_CHILD, PredictionReader

# Of records with one time, the one that came first to the topic is the older; what is not there yet comes behind all.
_STEP: Final = 2**63
_DIGITS: Final = 19
_NOT_THERE: Final = 2**62
CHOOSE: Final = f"""
    CREATE TABLE newest_places AS
    WITH firsts AS (
        SELECT key, id, max(ts) AS ts, min(at_offset) AS first FROM arrivals GROUP BY key, id
    ), own AS (
        SELECT pairs.at_partition, pairs.at_offset, pairs.key, pairs.place, pairs.ts,
            prefix || pairs.place || CASE WHEN child = {NO_CHILD} THEN '' ELSE '#' || child END AS id
        FROM pairs JOIN spans ON pairs.topic_no = spans.topic_no AND pairs.part = spans.part
        AND pairs.place >= spans.first AND pairs.place < spans.behind
        WHERE pairs.at_offset IS NOT NULL
    ), ranked AS (
        SELECT own.*, own.ts::HUGEINT * {_STEP} + COALESCE(firsts.first, {_NOT_THERE} + own.place) AS rank
        FROM own LEFT JOIN firsts USING (key, id)
    ), newest AS (
        SELECT key, max(rank) AS rank FROM (
            SELECT key, ts::HUGEINT * {_STEP} + first AS rank FROM firsts UNION ALL SELECT key, rank FROM ranked
        ) GROUP BY key
    )
    SELECT at_partition, at_offset, id FROM ranked LEFT JOIN newest USING (key)
    WHERE ranked.key IS NULL OR ranked.rank = newest.rank"""


_REVISION: Final = "CASE WHEN mark IS NULL THEN said_revision ELSE TRY_CAST(split_part(mark, ';', 4) AS BIGINT) END"


class Newest:
    """What the live topic has of each key: all of it up to a moment in the database, and what came since in memory."""

    def __init__(
        self, connection: Any, client: Mapping[str, Any], topic: str, reader: PredictionReader, run: int
    ) -> None:
        self._connection = connection
        self._client = client
        self._topic = topic
        self._reader = reader
        self._run = run
        self._ends: dict[int, int] = {}
        self._since: dict[bytes, tuple[int, str, int]] = {}

    def choose(self, since_ms: int | None) -> None:
        """Make the table ``newest_places`` of ``pairs``: where the rows of the run are that are the newest of their key.

        A row that a later run has corrected already is not among them: behind that one it would be the last of its key.

        Args:
            since_ms: no row of the run is older; ``None``: not known.

        Raises:
            ConfigError: the topic does not say source time.
        """
        self._connection.execute("CREATE TABLE arrivals (key BLOB, id VARCHAR, ts BIGINT, at_offset BIGINT)")
        self._connection.execute("CREATE TABLE superseded (id VARCHAR)")
        for chunk in joined(self._new(since_ms)):
            if chunk.append_times():
                raise ConfigError(
                    f"The records of {self._topic} have the time at which the broker wrote them (message.timestamp.type), so "
                    "nobody can tell which one of a key is the newest by source time; publish without --only-latest-per-key."
                )
            self._connection.register("arrived", self._reader.table(chunk))
            self._connection.execute(
                "INSERT INTO arrivals SELECT key, COALESCE(CASE WHEN mark IS NULL THEN said_id ELSE split_part(mark, ';', 2) "
                "END, ''), ts, at_offset FROM arrived WHERE key IS NOT NULL"
            )
            self._connection.execute(
                "INSERT INTO superseded SELECT CASE WHEN mark IS NULL THEN said_id ELSE split_part(mark, ';', 2) END "
                f"FROM arrived WHERE {_REVISION} > {self._run}"
            )
            self._connection.unregister("arrived")
        self._connection.execute(CHOOSE)
        self._connection.execute("DELETE FROM newest_places WHERE id IN (SELECT id FROM superseded)")

    def catch_up(self) -> None:
        """Read what was written since."""
        for chunk in self._new(None):
            rows = self._reader.table(chunk).select(["key", "ts", "mark", "said_id", "said_revision"]).to_pylist()
            for row in rows:
                known = self._since.get(row["key"], (row["ts"], "", 0))
                if row["key"] is not None and row["ts"] >= known[0]:
                    id, revision = (
                        id_said(row["mark"], row["said_id"]),
                        revision_said(row["mark"], row["said_revision"]),
                    )
                    highest = max(revision, known[2]) if id == known[1] else revision
                    self._since[row["key"]] = (row["ts"], id, highest)

    def overtaken(self, key: bytes | None, time_ms: int, id: str) -> bool:
        """Whether another prediction of the key, as new or newer, came since, or a later run's of the same record."""
        if key is None or key not in self._since:
            return False
        time, other, revision = self._since[key]
        return time >= time_ms and (other != id or revision > self._run)

    def _new(self, since_ms: int | None) -> Iterator[Chunk]:
        offsets = KafkaOffsets(self._client)
        bounds = offsets.bounds(offsets.partitions([self._topic]))
        ends = {where.partition: high for where, (_, high) in bounds.items()}
        starts = {number: self._ends.get(number, 0) for number in ends}
        self._ends = ends
        # Uncommitted too: what is in an open transaction will stand before whatever is written now.
        yield from read_chunks(self._client, self._topic, Stretch(starts, ends, since_ms, uncommitted=True))


def id_said(mark: str | None, said: str | None) -> str:
    """The id of a prediction by its header or, without one, its value; empty where neither says it."""
    if mark is None:
        return said or ""
    parts = mark.split(";", 2)
    return parts[1] if len(parts) > 1 else ""


def revision_said(mark: str | None, said: int | None) -> int:
    """The same of its revision; 0 where neither says it."""
    if mark is None:
        return said or 0
    parts = mark.split(";", 4)
    return int(parts[3]) if len(parts) > 3 and parts[3].isdecimal() and len(parts[3]) < _DIGITS else 0
