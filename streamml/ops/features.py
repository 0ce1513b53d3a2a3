"""Feature sets from files: Parquet or CSV into Redis as a new version; list, look into, roll back and prune versions.

Nothing here prints; the command line does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from streamml.adapters.redis import stored as entities
from streamml.adapters.redis import versions as stored
from streamml.adapters.redis.catalogue import Catalogue, Version
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.loader import LoadPlan, LoadReport, load
from streamml.adapters.redis.stored import StoredEntity
from streamml.adapters.redis.versions import MIN_AGE_S
from streamml.errors import ConfigError, LoadUndone
from streamml.ops.feature_files import FileColumns, open_feature_file
from streamml.ports.feature_store import FeatureSchema

Options = Mapping[str, Any]
# A load is no lookup: a server that is busy for some seconds is no reason to begin again.
TIMEOUT_S: Final = 10.0
_MORE_ATTEMPTS: Final = 2
_log: Final = logging.getLogger(__name__)


def load_file(
    path: str | Path,
    schema: FeatureSchema,
    key: tuple[str, ...],
    *,
    url: str,
    event_time: str = "event_time",
    version: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    options: Options | None = None,
) -> LoadReport:
    """Load a Parquet or CSV file as a new version of a set and make it the current one.

    The file has a column for every feature column, key column and the event time; others are not read. Key columns are
    text, integers or dates; in CSV they are taken as written. The event time is a timestamp (one without a zone is
    UTC) or a date. Memory use does not depend on the size of the file.

    Where Redis goes away under the load and comes back within a minute, or a replica takes over, the load begins again, twice at most.

    Args:
        path: the file, ``.parquet`` or ``.csv`` (``.csv.gz``) with a header line.
        schema: the set and its columns.
        key: columns that name the entity, in the order of the set's key.
        url: Redis.
        event_time: column with the time that a row describes.
        version: name of the new version; ``None``: the UTC time.
        progress: called with the rows written and the rows in the file (``None`` for CSV).
        options: further arguments of a redis-py connection.

    Raises:
        ConfigError: the file does not fit the schema, or rows cannot be stored; every problem, rows up to 20.
        FeaturesUnavailable: Redis does not answer, or refuses to store.
    """
    if schema.kind == "streaming":
        raise ConfigError(
            f"Feature set {schema.name!r} is streaming: its values are written in place by a streamml.features.FeatureWriter, and "
            'not loaded as versions. Write them by one, or declare the set without kind="streaming".'
        )
    server, file = Server(url, TIMEOUT_S, options), Path(path)

    def load_once() -> LoadReport:
        with open_feature_file(file, FileColumns(schema, key, event_time)) as source:
            plan = LoadPlan(schema, key, event_time, version, file.name, source.rows)
            return load(server, plan, source.batches(), progress=progress)

    for _ in range(_MORE_ATTEMPTS):
        try:
            return load_once()
        except LoadUndone as error:
            _log.warning("%s It is begun again.", error)
    return load_once()


def versions(set_name: str, *, url: str, options: Options | None = None) -> Catalogue:
    """Every version of a set, and which one is current.

    Raises:
        ConfigError: there is no such set; names those that there are.
        FeaturesUnavailable: Redis does not answer.
    """
    return _known(Server(url, TIMEOUT_S, options), set_name)


def show(set_name: str, entity: Sequence[str], *, url: str, options: Options | None = None) -> StoredEntity:
    """What the version that is read holds for one entity; see `streamml.adapters.redis.stored.show`.

    Raises:
        ConfigError: there is no such set, or its entities have keys of another number of parts.
        FeaturesUnavailable: Redis does not answer.
    """
    server = Server(url, TIMEOUT_S, options)
    _known(server, set_name)
    return entities.show(server, set_name, entity)


def rollback(set_name: str, version: str | None = None, *, url: str, options: Options | None = None) -> Version:
    """Make an earlier version current; see `streamml.adapters.redis.versions.rollback`."""
    server = Server(url, TIMEOUT_S, options)
    _known(server, set_name)
    return stored.rollback(server, set_name, version)


def prune(
    set_name: str, *, url: str, keep: int = 3, older_than_s: float = MIN_AGE_S, options: Options | None = None
) -> list[str]:
    """Delete versions that nobody can need any more; see `streamml.adapters.redis.versions.prune`."""
    server = Server(url, TIMEOUT_S, options)
    _known(server, set_name)
    return stored.prune(server, set_name, keep=keep, older_than_s=older_than_s)


def _known(server: Server, set_name: str) -> Catalogue:
    """The catalogue of a set that was loaded, or at least began to be."""
    catalogue = stored.versions(server, set_name)
    if catalogue.current is None and not catalogue.versions:
        loaded = stored.loaded_sets(server)
        names = f"loaded sets are: {', '.join(loaded)}" if loaded else "no set is"
        raise ConfigError(
            f"Feature set {set_name!r} was never loaded or written into Redis at {server.where}; {names}. "
            "Correct the name, load it with `streamml features load`, or start the writer of a streaming set."
        )
    return catalogue
