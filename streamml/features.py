"""Writes streaming feature sets (``FeatureSet(kind="streaming")``) from any process: a stream processor, a job, a notebook.

::

    from streamml.features import FeatureWriter

    with FeatureWriter(airports, url="redis://127.0.0.1:6379", writer="arrivals-app") as writer:
        writer.write({"airport": codes, "event_time": times, "mean_delay": delays, "landings": counts})

Workers see a value at their next lookup. docs/guide/features.md shows it from other systems.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from socket import gethostname
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from streamml.adapters.redis.awaited import Awaited
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.given import as_column
from streamml.adapters.redis.layout import Layout
from streamml.adapters.redis.rows import Rows, checked_rows
from streamml.adapters.redis.streaming import Stream, StreamWriter
from streamml.batch.column import Array, text, timestamp
from streamml.errors import ConfigError
from streamml.topology.check_features import EVENT_TIME, stored_set_problems
from streamml.topology.duration import seconds
from streamml.topology.features import FeatureSet
from streamml.topology.sentences import KEPT_FOR_S, duration_problems

__all__ = ["AsyncFeatureWriter", "FeatureWriter", "Written"]

Columns = Mapping[str, npt.NDArray[Any] | Sequence[Any]]
PROBLEMS_SHOWN: Final = 20
_NO_ROWS: Final = "There are no rows to write."


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one call.

    Args:
        rows: rows of the call.
        older: of these, rows that were left out, as Redis had a value of a later event time for their entity.
    """

    rows: int
    older: int


class FeatureWriter:
    """Writes values of one streaming set. What a call returned for, Redis has.

    An entity's value is replaced by one of the same or a later event time only; Redis decides that, so that several
    writers, retries and late data do no harm. Many rows in one call are fast (a round trip holds hundreds of rows, eight of them are under
    way); rows of one call may be of the same entity. One thread at a time.
    """

    def __init__(
        self,
        feature_set: FeatureSet,
        *,
        url: str = "redis://127.0.0.1:6379",
        writer: str | None = None,
        keep: str | None = None,
        retry_for: str = "30s",
        timeout: str = "5s",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            feature_set: as the topology declares it.
            url: Redis, as a worker's.
            writer: who writes, as `streamml features show` tells it; ``None``: this machine's name.
            keep: how long Redis keeps a value after it was written last; ``None``: twice the set's ttl, so that what is too
                old is told as stale before it is missing.
            retry_for: how long a call tries again while Redis does not answer; then it raises.
            timeout: how long to wait for a connection, or for any reply.
            options: further arguments of a redis-py connection (``username``, ``password``, ``ssl_ca_certs`` …).

        Raises:
            ConfigError: the set is not streaming or cannot be stored, or a duration or the URL is not valid; every problem.
        """
        name = gethostname() if writer is None else writer
        problems = [*_declaration_problems(feature_set), *_name_problems(name)]
        problems += duration_problems("keep", keep, KEPT_FOR_S)
        problems += duration_problems("timeout", timeout, KEPT_FOR_S)
        problems += duration_problems("retry_for", retry_for, 0.0)
        if problems:
            raise ConfigError(problems)
        kept = 2 * seconds(feature_set.ttl or 0.0) if keep is None else seconds(keep)
        stream = Stream(Layout.of(feature_set.schema), name, round(kept * 1000), seconds(retry_for))
        self._declared = feature_set
        self._writer = StreamWriter(Server(url, seconds(timeout), options), stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, columns: Columns, *, event_time: datetime | None = None) -> Written:
        """Write one value per row.

        Args:
            columns: the set's key columns (text, bytes, integers or dates) and its feature columns, numpy arrays or sequences of one
                length; and ``event_time`` (datetime64, UTC, or datetimes), unless it is one for all.
            event_time: the time that all values describe; one without a zone is UTC.

        Raises:
            ConfigError: rows that cannot be stored, up to 20 named, or a column that is missing, unknown or of another type.
                Nothing was written.
            FeaturesUnavailable: Redis did not answer for ``retry_for``; rows that were not acknowledged may be stored or not,
                and are safe to write again.
        """
        rows = self._checked(columns, event_time)
        return Written(len(rows.event_time), self._writer.write(rows))

    def write_rows(self, rows: Iterable[Mapping[str, Any]], *, event_time: datetime | None = None) -> Written:
        """The same from a mapping per row.

        Raises:
            ConfigError, FeaturesUnavailable: as `write`.
        """
        listed = list(rows)
        if not listed:
            raise ConfigError(f"Feature set {self._declared.name!r}: {_NO_ROWS}")
        if others := [place for place, row in enumerate(listed) if not isinstance(row, Mapping)]:
            told = "is no mapping of column names to values, but of type"
            raise ConfigError(
                [f"Row {place + 1} {told} {type(listed[place]).__name__}." for place in others[:PROBLEMS_SHOWN]]
            )
        names = list(dict.fromkeys(name for row in listed for name in row))
        if lacking := [name for name in names if any(name not in row for row in listed)]:
            raise ConfigError([f"Column {name!r} is not in every row; give each row all columns." for name in lacking])
        return self.write({name: [row[name] for row in listed] for name in names}, event_time=event_time)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    def _checked(self, columns: Columns, event_time: datetime | None) -> Rows:
        declared = self._declared
        batch, problems = self._columns(columns, event_time)
        if not problems:
            found = checked_rows(batch, declared.schema, declared.key, EVENT_TIME, 1, PROBLEMS_SHOWN)
            if isinstance(found, Rows) and len(found.event_time):
                return found
            problems = found if isinstance(found, list) else [_NO_ROWS]
        raise ConfigError([f"Feature set {declared.name!r}: {problem}" for problem in problems])

    def _columns(self, columns: Columns, event_time: datetime | None) -> tuple[dict[str, Array], list[str]]:
        """The columns as arrays, and what is wrong with them as such."""
        declared = self._declared
        wanted = {**dict.fromkeys(declared.key, text), **declared.columns, EVENT_TIME: timestamp}
        there = ", ".join(wanted)
        problems = [f"There is no column {name!r}; there are {there}." for name in columns if name not in wanted]
        if event_time is not None and EVENT_TIME in columns:
            problems.append(f"The column {EVENT_TIME!r} and one event time for all rows are given; leave one out.")
        batch: dict[str, Array] = {}
        given = dict(columns) if event_time is None else {**columns, EVENT_TIME: [event_time]}
        for name in (one for one in wanted if one in given):
            try:
                batch[name] = as_column(given[name], wanted[name].dtype, wanted[name].shape)
            except ValueError as error:
                problems.append(f"Column {name!r} {error}.")
        if event_time is not None and EVENT_TIME in batch:
            rows = max((column.shape[0] for column in batch.values() if column.ndim), default=1)
            batch[EVENT_TIME] = np.repeat(batch[EVENT_TIME], rows)
        return batch, problems


class AsyncFeatureWriter:
    """`FeatureWriter` for asyncio: the same calls, awaited. A thread of its own does the work, one call after another.

    Args:
        waiting: calls that may be under way; more wait in their ``await``, so that nothing piles up.
    """

    def __init__(self, feature_set: FeatureSet, *, waiting: int = 16, **settings: Any) -> None:
        """
        Args:
            settings: as `FeatureWriter` takes them.

        Raises:
            ConfigError: as `FeatureWriter`, or ``waiting`` is below 1.
        """
        self._calls = Awaited(f"streamml-features-{feature_set.name}", waiting, threads=1)
        self._writer = FeatureWriter(feature_set, **settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def write(self, columns: Columns, *, event_time: datetime | None = None) -> Written:
        """See `FeatureWriter.write`. One that is cancelled while it is under way is written all the same, unless it fails."""
        return await self._calls.call(self._writer.write, columns, event_time=event_time)

    async def write_rows(self, rows: Iterable[Mapping[str, Any]], *, event_time: datetime | None = None) -> Written:
        """See `FeatureWriter.write_rows`."""
        return await self._calls.call(self._writer.write_rows, list(rows), event_time=event_time)

    async def close(self) -> None:
        """Finish the calls that are under way and close the connection."""
        await self._calls.close(self._writer.close)


def _declaration_problems(declared: FeatureSet) -> list[str]:
    where = f"Feature set {declared.name!r}"
    problems = list(stored_set_problems(where, declared))
    if declared.kind != "streaming":
        problems.append(
            f'{where} is loaded as versions: write it with `streamml features load`, or declare it with kind="streaming".'
        )
    try:
        Layout.of(declared.schema)
    except ConfigError as error:
        problems += error.problems
    return problems


def _name_problems(writer: object) -> list[str]:
    """Whether this can be told as who wrote."""
    try:
        told = isinstance(writer, str) and writer.encode() != b""
    except UnicodeEncodeError:
        told = False
    return [] if told else [f"writer is {writer!r}; it has to be a name, which `streamml features show` tells."]
