"""Versions of a feature set: which exist, which one is read, and every change of that.

States of a version::

    (none) --claim--> loading --complete--> complete --prune--> pruning --> (none)
                         `-------abandon / prune------------------^

A version of a streaming set is ``live`` as soon as it is written, and pruned when another one took its place.

Only a complete version can be current. Every change is a transaction on the pointer and the catalogue, tried again when
another writer was faster, so that no change is based on something that is no longer so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeVar

from streamml.adapters.redis.connection import Session
from streamml.adapters.redis.keys import catalogue_key, pointer_key
from streamml.adapters.redis.nodes import Nodes
from streamml.errors import ConfigError, FeaturesUnavailable

State = Literal["loading", "complete", "live", "pruning"]
Command = tuple[bytes | str, ...]
_Record = TypeVar("_Record", "Pointer", "Version")
_ATTEMPTS: Final = 20


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which version of a set is read: the JSON under its `pointer_key`.

    Args:
        version: the version that is read.
        schema_hash: hash of its schema.
        columns: ``name:type`` of its columns in stored order.
        since: when it became current, seconds since 1970 UTC.
        previous: the version that was current before.
    """

    version: str
    schema_hash: int
    columns: tuple[str, ...]
    since: float = 0.0
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """What the catalogue knows of one version; times are seconds since 1970 UTC.

    Args:
        version: its name.
        state: where it is in its life.
        schema_hash: hash of its schema.
        columns: ``name:type`` of its columns in stored order.
        rows: rows read so far, or in all.
        entities: entities with a value, once complete.
        loaded_at: when the load began, or the first value of a streaming set was written.
        updated_at: when the load or a writer last said that it is alive, or the load was completed.
        event_time_min: earliest event time, µs; ``None`` where nothing is known yet.
        event_time_max: latest.
        source: where the rows came from.
        current_until: when it last ceased to be current.
    """

    version: str
    state: State
    schema_hash: int
    columns: tuple[str, ...]
    loaded_at: float
    updated_at: float
    rows: int = 0
    entities: int = 0
    event_time_min: int | None = None
    event_time_max: int | None = None
    source: str = ""
    current_until: float | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that is known of one set at one moment.

    Args:
        set_name: name of the set.
        current: which version is read; ``None``: the set was never loaded.
        versions: every version, oldest load first.
    """

    set_name: str
    current: Pointer | None
    versions: tuple[Version, ...]

    def find(self, version: str) -> Version | None:
        return next((known for known in self.versions if known.version == version), None)

    def complete(self) -> list[Version]:
        """The versions that can be read, oldest load first."""
        return [known for known in self.versions if known.state == "complete"]

    def live(self) -> Version | None:
        """The version of a streaming set that was written last."""
        return max(
            (known for known in self.versions if known.state == "live"), key=lambda one: one.updated_at, default=None
        )

    def before_current(self) -> Version | None:
        """The newest complete version that was loaded before the current one."""
        names = [known.version for known in self.complete()]
        if self.current is None or self.current.version not in names:
            return None
        place = names.index(self.current.version)
        return self.complete()[place - 1] if place else None


def pack_pointer(pointer: Pointer) -> bytes:
    return _pack(pointer)


def unpack_pointer(packed: bytes) -> Pointer:
    """Read a pointer.

    Raises:
        ValueError: these bytes are none.
    """
    return _unpack(Pointer, packed)


def pack_version(version: Version) -> bytes:
    return _pack(version)


def unpack_version(packed: bytes) -> Version:
    """Read an entry of the catalogue.

    Raises:
        ValueError: these bytes are none.
    """
    return _unpack(Version, packed)


def _pack(record: Pointer | Version) -> bytes:
    shown = asdict(record)
    return json.dumps({**shown, "schema_hash": f"{record.schema_hash:08x}"}, separators=(",", ":")).encode()


def _unpack(record: type[_Record], packed: bytes) -> _Record:
    try:
        read: dict[str, Any] = json.loads(packed)
        known = {field.name: read[field.name] for field in fields(record) if field.name in read}
        hashed = int(read["schema_hash"], 16)
        return record(**{**known, "schema_hash": hashed, "columns": tuple(read["columns"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{packed[:200]!r} is no {record.__name__.lower()} of a feature set.") from error


def read_catalogue(nodes: Nodes, set_name: str) -> Catalogue:
    """Read pointer and catalogue of a set.

    Raises:
        FeaturesUnavailable: the server does not answer, or holds something else under these keys.
    """
    return nodes.at(pointer_key(set_name), lambda session: _read(session, set_name))


def _read(session: Session, set_name: str) -> Catalogue:
    pointer = session.call("GET", pointer_key(set_name))
    entries = session.call("HVALS", catalogue_key(set_name))
    try:
        versions = sorted(map(unpack_version, entries), key=lambda known: (known.loaded_at, known.version))
        return Catalogue(set_name, unpack_pointer(pointer) if pointer is not None else None, tuple(versions))
    except ValueError as error:
        raise FeaturesUnavailable(f"The catalogue of feature set {set_name!r} cannot be read: {error}") from error


def change(nodes: Nodes, set_name: str, decide: Callable[[Catalogue], Sequence[Command]]) -> None:
    """Apply what ``decide`` makes of the catalogue, all of it or nothing; ``decide`` may be called several times.

    Raises:
        FeaturesUnavailable: the server does not answer, or other writers were always faster.
    """
    nodes.at(pointer_key(set_name), lambda session: _change(session, set_name, decide))


def _change(session: Session, set_name: str, decide: Callable[[Catalogue], Sequence[Command]]) -> None:
    for _ in range(_ATTEMPTS):
        session.call("WATCH", pointer_key(set_name), catalogue_key(set_name))
        commands = decide(_read(session, set_name))
        session.call("MULTI")
        for command in commands:
            session.call(*command)
        replies = session.call("EXEC")
        if replies is not None:
            return _all_done(set_name, replies)
    raise FeaturesUnavailable(f"Feature set {set_name!r} is being changed by others all the time; try again.")


def _all_done(set_name: str, replies: Sequence[Any]) -> None:
    if failed := [reply for reply in replies if isinstance(reply, Exception)]:
        raise FeaturesUnavailable(f"The catalogue of feature set {set_name!r} cannot be written: {failed[0]}")


def put(set_name: str, version: Version) -> Command:
    """The command that writes an entry of the catalogue."""
    return ("HSET", catalogue_key(set_name), version.version, pack_version(version))


def forget(set_name: str, version: str) -> Command:
    """The command that takes a version out of the catalogue."""
    return ("HDEL", catalogue_key(set_name), version)


def make_current(catalogue: Catalogue, version: Version, now: float) -> list[Command]:
    """The commands that let ``version`` be read from now on; none if it is."""
    if catalogue.current is not None and catalogue.current.version == version.version:
        return []
    left = catalogue.find(catalogue.current.version) if catalogue.current else None
    commands = []
    if left is not None:
        commands.append(put(catalogue.set_name, replace(left, current_until=now)))
    previous = catalogue.current.version if catalogue.current else None
    pointer = Pointer(version.version, version.schema_hash, version.columns, now, previous)
    return [*commands, ("SET", pointer_key(catalogue.set_name), pack_pointer(pointer))]


def to_roll_back_to(catalogue: Catalogue, version: str | None) -> Version:
    """The version that ``rollback`` means.

    Raises:
        ConfigError: there is none.
    """
    if catalogue.current is None and catalogue.live() is not None:
        raise ConfigError(
            f"Feature set {catalogue.set_name!r} is streaming: its values are written in place, and there is no earlier version "
            "to go back to. Let its writer write the right values, with event times as new as those that are there."
        )
    if version is None:
        found = catalogue.before_current()
        why = "has no complete version older than the current one"
    else:
        found = next((known for known in catalogue.complete() if known.version == version), None)
        why = f"has no complete version {version!r}"
    if found is None:
        names = ", ".join(known.version for known in catalogue.complete()) or "none"
        raise ConfigError(f"Feature set {catalogue.set_name!r} {why}; complete versions: {names}.")
    return found


def to_prune(catalogue: Catalogue, keep: int, older_than_s: float, now: float) -> list[Version]:
    """Versions that nobody can need: not among the newest ``keep`` complete ones, not current nor previous, and out
    of use for ``older_than_s``. Loads that died count as out of use from their last sign of life."""
    kept = {known.version for known in catalogue.complete()[-keep:]} if keep else set()
    before = catalogue.before_current()
    kept |= {before.version} if before else set()
    live = catalogue.live()
    kept |= {live.version} if live else set()
    if catalogue.current is not None:
        kept |= {catalogue.current.version, catalogue.current.previous or ""}
    return [
        known
        for known in catalogue.versions
        if known.state == "pruning" or (known.version not in kept and now - _last_use(known) > older_than_s)
    ]


def _last_use(version: Version) -> float:
    return max(version.updated_at, version.current_until or 0.0)


def new_version_name(now: float, taken: Sequence[str]) -> str:
    """A name made of the UTC time that no version in ``taken`` has, such as ``20260131T235959Z``."""
    name = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    names = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in names if candidate not in taken)
