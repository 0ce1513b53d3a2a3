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
from streamml.adapters.redis.layout import Layout
from streamml.adapters.redis.rows import Rows, as_column, checked_rows, in_utc
from streamml.adapters.redis.streaming import Stream, StreamWriter
from streamml.errors import ConfigError
from streamml.topology.duration import seconds
from streamml.topology.features import FeatureSet
from streamml.topology.sentences import duration_problems

__all__ = ["AsyncFeatureWriter", "FeatureWriter", "Written"]

Columns = Mapping[str, npt.NDArray[Any] | Sequence[Any]]
EVENT_TIME: Final = "event_time"
PROBLEMS_SHOWN: Final = 20


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
        problems = [*_declaration_problems(feature_set), *duration_problems("keep", keep)]
        problems += duration_problems("timeout", timeout)
        try:
            retry_for_s = seconds(retry_for)
        except ValueError as error:
            problems.append(f"retry_for: {error}")
        if problems:
            raise ConfigError(problems)
        kept = seconds(keep) if keep is not None else 2 * seconds(feature_set.ttl or 0.0)
        # 0 would be for ever.
        keep_ms = max(1, round(kept * 1000))
        stream = Stream(Layout.of(feature_set.schema), writer or gethostname(), keep_ms, retry_for_s)
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
        names = list(dict.fromkeys(name for row in listed for name in row))
        if lacking := [name for name in names if any(name not in row for row in listed)]:
            raise ConfigError([f"Column {name!r} is not in every row; give each row all columns." for name in lacking])
        return self.write({name: [row[name] for row in listed] for name in names}, event_time=event_time)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    def _checked(self, columns: Columns, event_time: datetime | None) -> Rows:
        declared = self._declared
        if problems := _column_problems(declared, columns, event_time):
            raise ConfigError(problems)
        batch = {name: as_column(values, name in declared.key) for name, values in columns.items()}
        if event_time is not None:
            rows = len(next(iter(batch.values()), ()))
            batch[EVENT_TIME] = np.full(rows, in_utc(event_time), "M8[us]")
        rows_or_problems = checked_rows(batch, declared.schema, declared.key, EVENT_TIME, 1, PROBLEMS_SHOWN)
        if isinstance(rows_or_problems, list):
            raise ConfigError([f"Feature set {declared.name!r}: {problem}" for problem in rows_or_problems])
        if not len(rows_or_problems.event_time):
            raise ConfigError(f"There are no rows to write into feature set {declared.name!r}.")
        return rows_or_problems


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
    problems = []
    if declared.kind != "streaming":
        problems.append(
            f"Feature set {declared.name!r} is loaded as versions: write it with `streamml features load`, or declare it with "
            'kind="streaming".'
        )
    elif declared.ttl is None:
        problems.append(
            f"Feature set {declared.name!r} has no ttl, so that nobody would see that its writer died; give it one, such as '3h'."
        )
    problems += duration_problems(f"The ttl of feature set {declared.name!r}", declared.ttl)
    if not declared.key:
        problems.append(f"Feature set {declared.name!r} has no key; name the columns that make up its entity.")
    if EVENT_TIME in declared.columns or EVENT_TIME in declared.key:
        problems.append(
            f"Feature set {declared.name!r} has a column called {EVENT_TIME!r}; that is the time of each row."
        )
    try:
        Layout.of(declared.schema)
    except ConfigError as error:
        problems += error.problems
    return problems


def _column_problems(declared: FeatureSet, columns: Columns, event_time: datetime | None) -> list[str]:
    wanted = [*declared.key, *declared.columns, EVENT_TIME]
    problems = [
        f"Feature set {declared.name!r} has no column {name!r}; it has {', '.join(wanted)}."
        for name in columns
        if name not in wanted
    ]
    problems += [
        f"Column {name!r} is {values!r} and no sequence; give it a value for each row."
        for name, values in columns.items()
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable)
    ]
    if event_time is not None and EVENT_TIME in columns:
        problems.append(f"There are a column {EVENT_TIME!r} and an event_time for all rows; give one of them.")
    return problems
