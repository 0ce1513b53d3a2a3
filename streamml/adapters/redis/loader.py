"""Writes a new version of a feature set, beside those that are being read, and cuts over when it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Final

from streamml.adapters.redis.catalogue import (
    Catalogue,
    Command,
    Version,
    change,
    make_current,
    put,
)
from streamml.adapters.redis.claims import abandon, claim, interrupted, is_loading
from streamml.adapters.redis.connection import Server, ServerAway
from streamml.adapters.redis.keys import entity_prefix, keys_of_parts
from streamml.adapters.redis.layout import Layout
from streamml.adapters.redis.nodes import Nodes
from streamml.adapters.redis.rows import Rows, checked_rows
from streamml.adapters.redis.version_writer import COMMANDS_IN_FLIGHT, VersionWriter
from streamml.batch.column import Array
from streamml.clock import Clock, SystemClock
from streamml.errors import ConfigError, FeaturesUnavailable
from streamml.ports.feature_store import FeatureSchema
from streamml.topology.sentences import name_problem

Batches = Iterable[Mapping[str, Array]]
Progress = Callable[[int, int | None], None]

PROBLEMS_SHOWN: Final = 20
# One command blocks the server, and the workers that read from it, for less than a millisecond.
_ROWS_PER_COMMAND: Final = 500
_BYTES_PER_COMMAND: Final = 1 << 18
_SIGN_OF_LIFE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is to be loaded.

    Args:
        schema: the set and its columns.
        key: columns that name the entity, in the order of the set's key.
        event_time: column with the time that a row describes.
        version: name of the new version; ``None``: the UTC time, such as ``20260131T235959Z``.
        source: where the rows come from, for people.
        total_rows: how many there are, where known.
    """

    schema: FeatureSchema
    key: tuple[str, ...]
    event_time: str = "event_time"
    version: str | None = None
    source: str = ""
    total_rows: int | None = None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What was loaded.

    Args:
        set_name: the set.
        version: its new version, which is now the current one.
        rows: rows read.
        entities: entities stored. Fewer than rows: some occurred more than once, and the last row counts.
        seconds: how long it took.
        event_time_min: earliest event time, µs since 1970 UTC.
        event_time_max: latest.
    """

    set_name: str
    version: str
    rows: int
    entities: int
    seconds: float
    event_time_min: int
    event_time_max: int


def load(
    server: Server, plan: LoadPlan, batches: Batches, *, progress: Progress | None = None, clock: Clock | None = None
) -> LoadReport:
    """Write all rows as a new version and make it the current one.

    A batch maps names to columns of one length: the key columns (text, bytes, integers or dates), the event time
    (``datetime64``) and the feature columns. Until all rows are written, nobody reads the version; a load that is
    killed never becomes current. ``progress`` is called with rows written and ``plan.total_rows`` after every batch.

    Raises:
        ConfigError: rows that cannot be stored (each named, up to 20), no rows, or a name that is taken. Nothing changed.
        LoadUndone: a server went away under the load and came back, or its replica did. The same; begin again.
        FeaturesUnavailable: the server does not answer, or refuses to store. The same, unless it went away at the cut-over: then
            the error says that the version may be current.
    """
    layout, clock = _checked(plan), clock or SystemClock()
    with closing(Nodes(server)) as nodes:
        claimed = claim(nodes, plan.version, plan.source, layout, clock.now())
        loading = _Load(nodes, plan, layout, claimed, clock)
        try:
            return loading.run(batches, progress)
        except ServerAway as error:
            loading.settle()
            raise interrupted(nodes, plan.schema.name, claimed, error) from error
        except BaseException:
            # Whoever interrupts a load leaves nothing either.
            loading.settle()
            abandon(nodes, plan.schema.name, claimed)
            raise
        finally:
            loading.close()


def _checked(plan: LoadPlan) -> Layout:
    problems = []
    if plan.version is not None and (wrong := name_problem("Version", plan.version)):
        problems.append(wrong)
    if not plan.key:
        problems.append(f"Feature set {plan.schema.name!r} has no key; name the columns that make up its entity.")
    try:
        layout = Layout.of(plan.schema)
    except ConfigError as error:
        raise ConfigError([*error.problems, *problems]) from None
    if plan.schema.kind != "loaded":
        problems.append(f"Feature set {plan.schema.name!r} is streaming, and not loaded as versions.")
    if problems:
        raise ConfigError(problems)
    return layout


class _Load:
    """Writes into a claimed version and completes it."""

    def __init__(self, nodes: Nodes, plan: LoadPlan, layout: Layout, claimed: Version, clock: Clock) -> None:
        self._nodes = nodes
        self._plan = plan
        self._layout = layout
        self._entry = claimed
        self._clock = clock
        self._writer = VersionWriter(nodes)

    def run(self, batches: Batches, progress: Progress | None) -> LoadReport:
        for rows in self._fit(batches):
            self._write(rows)
            if progress is not None:
                progress(self._entry.rows, self._plan.total_rows)
        if not self._entry.rows:
            where = f" in {self._plan.source}" if self._plan.source else ""
            raise ConfigError(f"There are no rows{where} to load into feature set {self._plan.schema.name!r}.")
        return self._complete()

    def settle(self) -> None:
        """Wait for what was sent: the server might write it after all has been removed, and nobody would find it again."""
        # Without an answer there is nothing to wait for; what failed is being raised.
        with suppress(FeaturesUnavailable):
            self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    def _fit(self, batches: Batches) -> Iterator[Rows]:
        """The rows of every batch up to the first bad row; then the search goes on for others, to name them all."""
        problems: list[str] = []
        first_row = 1
        plan = self._plan
        for batch in batches:
            limit = PROBLEMS_SHOWN - len(problems)
            rows = checked_rows(batch, plan.schema, plan.key, plan.event_time, first_row, limit)
            if isinstance(rows, list):
                problems += [f"{plan.source}: {problem}" if plan.source else problem for problem in rows]
            elif not problems:
                yield rows
            if len(problems) >= PROBLEMS_SHOWN:
                problems.append(f"These are the first {PROBLEMS_SHOWN} problems; there may be more.")
                break
            first_row += len(next(iter(batch.values()), ()))
        if problems:
            raise ConfigError(problems)

    def _write(self, rows: Rows) -> None:
        count = len(rows.event_time)
        if not count:
            return
        prefix = entity_prefix(self._plan.schema.name, self._entry.version)
        step = max(1, min(_ROWS_PER_COMMAND, _BYTES_PER_COMMAND // self._layout.size))
        step *= COMMANDS_IN_FLIGHT if self._nodes.clustered else 1
        written_at = int(self._clock.now() * 1e6)
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            keys = keys_of_parts(prefix, [texts[part] for texts in rows.parts], part.stop - part.start)
            columns = {name: column[part] for name, column in rows.columns.items()}
            self._writer.write(keys, self._layout.encode(columns, rows.event_time[part], written_at))
        self._count(rows)

    def _count(self, rows: Rows) -> None:
        entry, now = self._entry, self._clock.now()
        low, high = int(rows.event_time.min()), int(rows.event_time.max())
        self._entry = replace(
            entry,
            rows=entry.rows + len(rows.event_time),
            event_time_min=low if entry.event_time_min is None else min(low, entry.event_time_min),
            event_time_max=high if entry.event_time_max is None else max(high, entry.event_time_max),
        )
        if now - entry.updated_at > _SIGN_OF_LIFE_S:
            self._writer.drain()
            self._update(replace(self._entry, updated_at=now))

    def _complete(self) -> LoadReport:
        self._writer.drain()
        now, started = self._clock.now(), self._entry.loaded_at
        self._update(replace(self._entry, state="complete", entities=self._writer.entities, updated_at=now))
        done = self._entry
        assert done.event_time_min is not None
        assert done.event_time_max is not None
        return LoadReport(
            self._plan.schema.name,
            done.version,
            done.rows,
            done.entities,
            now - started,
            done.event_time_min,
            done.event_time_max,
        )

    def _update(self, entry: Version) -> None:
        """Replace the entry; a complete one becomes current in the same transaction."""

        def decide(catalogue: Catalogue) -> list[Command]:
            if not is_loading(catalogue, entry):
                raise FeaturesUnavailable(
                    f"Version {entry.version!r} of feature set {catalogue.set_name!r} was removed while it was loaded; load again."
                )
            cut_over = make_current(catalogue, entry, entry.updated_at) if entry.state == "complete" else []
            return [put(catalogue.set_name, entry), *cut_over]

        change(self._nodes, self._plan.schema.name, decide)
        self._entry = entry
