"""What people do with the versions of a feature set: list them, look into one, go back, tidy up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from streamml.adapters.redis.catalogue import (
    Catalogue,
    Command,
    Version,
    change,
    forget,
    make_current,
    put,
    read_catalogue,
    to_prune,
    to_roll_back_to,
)
from streamml.adapters.redis.connection import Server, Session
from streamml.adapters.redis.layout import (
    Layout,
    entity_keys,
    entity_parts,
    entity_prefix,
    name_problem,
    pointer_key,
    schema_from_lines,
    schema_lines,
    set_of_pointer,
)
from streamml.clock import Clock, SystemClock
from streamml.errors import ConfigError, FeaturesUnavailable

MIN_AGE_S: Final = 3600.0
_SCAN: Final = 1000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StoredEntity:
    """One entity as the current version has it.

    Args:
        version: the current version.
        problem: why there is no value: absent, or not of the version's layout; ``None``: there is one.
        event_time: the time that the values describe; ``None`` also beyond the year 9999.
        write_time: when they were written.
        columns: values as Python objects, lists for vectors.
    """

    version: str
    problem: str | None = None
    event_time: datetime | None = None
    write_time: datetime | None = None
    columns: dict[str, object] | None = None


def versions(server: Server, set_name: str) -> Catalogue:
    """Every version of a set, and which one is current.

    Raises:
        ConfigError: this cannot be the name of a set.
        FeaturesUnavailable: the server does not answer.
    """
    session = _session(server, set_name)
    try:
        return read_catalogue(session, set_name)
    finally:
        session.close()


def loaded_sets(server: Server) -> list[str]:
    """Names of the sets that have a current version; the whole database is scanned for them.

    Raises:
        FeaturesUnavailable: the server does not answer.
    """
    session = server.connect()
    try:
        found = [set_of_pointer(key) for keys in _scanned(session, pointer_key("*")) for key in keys]
    finally:
        session.close()
    return sorted({name for name in found if name is not None})


def rollback(server: Server, set_name: str, version: str | None = None, *, clock: Clock | None = None) -> Version:
    """Make ``version`` current, or the complete one that was loaded before the current one; returns it.

    Raises:
        ConfigError: there is no such complete version.
        FeaturesUnavailable: the server does not answer.
    """
    now = (clock or SystemClock()).now()
    chosen: list[Version] = []

    def decide(catalogue: Catalogue) -> list[Command]:
        chosen.append(to_roll_back_to(catalogue, version))
        return make_current(catalogue, chosen[-1], now)

    session = _session(server, set_name)
    try:
        change(session, set_name, decide)
    finally:
        session.close()
    return chosen[-1]


def show(server: Server, set_name: str, entity: Sequence[str]) -> StoredEntity:
    """What the current version holds for one entity, given as its key parts.

    Raises:
        ConfigError: this cannot be the name of a set, or the set's keys have another number of parts.
        FeaturesUnavailable: the server does not answer, or the set was never loaded.
    """
    session = _session(server, set_name)
    try:
        current = read_catalogue(session, set_name).current
        if current is None:
            raise never_loaded(set_name)
        prefix = entity_prefix(set_name, current.version)
        key = entity_keys(prefix, [tuple(part.encode() for part in entity)])[0]
        value: bytes | None = session.call("MGET", key)[0]
        if value is None:
            _hold_against_another(session, set_name, prefix, len(entity))
    finally:
        session.close()
    if value is None:
        return StoredEntity(current.version, "there is no value for this entity")
    layout = Layout.of(schema_from_lines(set_name, current.columns))
    decoded = layout.decode([value])
    if decoded.corrupt:
        return StoredEntity(
            current.version, f"its {len(value)} bytes are no value of this version's {layout.size} bytes"
        )
    columns = {name: column[0].tolist() for name, column in decoded.columns.items()}
    return StoredEntity(current.version, None, _time(decoded.event_time[0]), _time(decoded.write_time[0]), columns)


def prune(
    server: Server, set_name: str, *, keep: int = 3, older_than_s: float = MIN_AGE_S, clock: Clock | None = None
) -> list[str]:
    """Delete versions that nobody can need any more; returns their names.

    Kept are the newest ``keep`` complete versions, the current and the previous one, and whatever was loaded or in
    use within ``older_than_s``. Values are deleted in small chunks; the whole database is scanned for them.

    Raises:
        ConfigError: ``older_than_s`` is below an hour, which is promised to every version, or ``keep`` below 1.
        FeaturesUnavailable: the server does not answer; what was begun is finished by the next call.
    """
    if keep < 1 or older_than_s < MIN_AGE_S:
        raise ConfigError(
            f"Pruning keeps at least 1 version and {MIN_AGE_S:g} s; keep is {keep}, the age {older_than_s:g} s."
        )
    now = (clock or SystemClock()).now()
    chosen: list[Version] = []

    def decide(catalogue: Catalogue) -> list[Command]:
        chosen[:] = to_prune(catalogue, keep, older_than_s, now)
        return [put(set_name, replace(known, state="pruning")) for known in chosen]

    session = _session(server, set_name)
    try:
        change(session, set_name, decide)
        for known in chosen:
            remove(session, set_name, known.version)
    finally:
        session.close()
    return [known.version for known in chosen]


def remove(session: Session, set_name: str, version: str) -> None:
    """Delete the values of a version whose state is pruning, then its entry."""
    for keys in _scanned(session, entity_prefix(set_name, version) + b"*"):
        session.call("UNLINK", *keys)
    # Of a streaming set, this is what readers ask for first.
    session.call("UNLINK", entity_prefix(set_name, version)[:-1])
    session.call(*forget(set_name, version))


def _scanned(session: Session, pattern: bytes) -> Iterator[list[bytes]]:
    """Keys that match, a few at a time, as the server must not be held up."""
    cursor = b"0"
    while True:
        cursor, keys = session.call("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN)
        if keys:
            yield keys
        if cursor == b"0":
            return


def _hold_against_another(session: Session, set_name: str, prefix: bytes, parts: int) -> None:
    """Whether the key of any other entity has as many parts; the catalogue does not know.

    Raises:
        ConfigError: it has not.
    """
    keys = next(_scanned(session, prefix + b"*"), [])
    known = entity_parts(prefix, keys[0]) if keys else None
    if known is not None and len(known) != parts:
        raise ConfigError(
            f"The keys of feature set {set_name!r} have {len(known)} part{'s' * (len(known) != 1)}, and {parts} "
            f"{'were' if parts != 1 else 'was'} given; write one argument per part, in the order of the set's key."
        )


def never_loaded(set_name: str) -> FeaturesUnavailable:
    """What is said of a set without a pointer."""
    return FeaturesUnavailable(f"Feature set {set_name!r} was never loaded; run streamml features load.")


def never_written(layout: Layout) -> FeaturesUnavailable:
    """What is said of a streaming set that nobody has written with this schema."""
    return FeaturesUnavailable(
        f"Streaming feature set {layout.schema.name!r} was never written with the declared schema "
        f"({layout.schema_hash:08x}: {', '.join(schema_lines(layout.schema))}); start its writer "
        "(streamml.features.FeatureWriter) with this declaration, or correct the columns."
    )


def _session(server: Server, set_name: str) -> Session:
    if wrong := name_problem("Feature set", set_name):
        raise ConfigError(wrong)
    return server.connect()


def _time(microseconds: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=int(microseconds))
    except OverflowError:
        return None
