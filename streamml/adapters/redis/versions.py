"""What people do with the versions of a feature set: list them, go back, tidy up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
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
    entity_prefix,
    name_problem,
    pointer_key,
    schema_lines,
    set_of_pointer,
)
from streamml.clock import Clock, SystemClock
from streamml.errors import ConfigError, FeaturesUnavailable

MIN_AGE_S: Final = 3600.0
_SCAN: Final = 1000


def versions(server: Server, set_name: str) -> Catalogue:
    """Every version of a set, and which one is current.

    Raises:
        ConfigError: this cannot be the name of a set.
        FeaturesUnavailable: the server does not answer.
    """
    session = open_session(server, set_name)
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
        found = [set_of_pointer(key) for keys in scanned(session, pointer_key("*")) for key in keys]
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

    session = open_session(server, set_name)
    try:
        change(session, set_name, decide)
    finally:
        session.close()
    return chosen[-1]


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

    session = open_session(server, set_name)
    try:
        change(session, set_name, decide)
        for known in chosen:
            remove(session, set_name, known.version)
    finally:
        session.close()
    return [known.version for known in chosen]


def remove(session: Session, set_name: str, version: str) -> None:
    """Delete the values of a version whose state is pruning, then its entry."""
    for keys in scanned(session, entity_prefix(set_name, version) + b"*"):
        session.call("UNLINK", *keys)
    # Of a streaming set, this is what readers ask for first.
    session.call("UNLINK", entity_prefix(set_name, version)[:-1])
    session.call(*forget(set_name, version))


def scanned(session: Session, pattern: bytes) -> Iterator[list[bytes]]:
    """Keys that match, a few at a time, as the server must not be held up."""
    cursor = b"0"
    while True:
        cursor, keys = session.call("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN)
        if keys:
            yield keys
        if cursor == b"0":
            return


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


def open_session(server: Server, set_name: str) -> Session:
    """A connection, for what has to do with one set.

    Raises:
        ConfigError: this cannot be the name of a set.
    """
    if wrong := name_problem("Feature set", set_name):
        raise ConfigError(wrong)
    return server.connect()
