"""One entity of a feature set, as it lies in Redis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from streamml.adapters.redis.catalogue import Catalogue, Version, read_catalogue
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.keys import entity_keys, entity_parts, entity_prefix, writers_key
from streamml.adapters.redis.layout import Layout, schema_from_lines, schema_lines, writer_number
from streamml.adapters.redis.nodes import Nodes
from streamml.adapters.redis.versions import never_loaded, never_written, nodes_for
from streamml.errors import ConfigError
from streamml.ports.feature_store import FeatureSchema

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StoredEntity:
    """One entity as the version that is read has it.

    Args:
        kind: of the set.
        version: the current one; of a streaming set that of the schema.
        key: under which Redis has it.
        schema: ``name:type`` of the version's columns.
        problem: why there is no value: absent, or not of the version's layout; ``None``: there is one.
        event_time: the time that the values describe; ``None`` also beyond the year 9999.
        write_time: when they were written.
        event_time_us: the same as µs since 1970.
        writer: who wrote: a writer's name, or its number where Redis does not know it any more; of a loaded set the file or job.
        columns: values as Python objects, lists for vectors.
        expires_in_s: seconds until Redis deletes it; ``None``: never.
    """

    kind: Literal["loaded", "streaming"]
    version: str
    key: str
    schema: tuple[str, ...]
    problem: str | None = None
    event_time: datetime | None = None
    write_time: datetime | None = None
    event_time_us: int | None = None
    writer: str | None = None
    columns: dict[str, object] | None = None
    expires_in_s: float | None = None


def show(server: Server, set_name: str, entity: Sequence[str], schema: FeatureSchema | None = None) -> StoredEntity:
    """What the version that is read holds for one entity.

    Args:
        entity: its key parts; bytes that are no text as `os.fsdecode` gives them, and so the command line.
        schema: as declared; ``None``: the schema of the current version, or the one that was last written.

    Raises:
        ConfigError: this cannot be the name of a set, or the set's keys have another number of parts.
        FeaturesUnavailable: the server does not answer, or the set was never loaded or written.
    """
    with nodes_for(server, set_name) as nodes:
        catalogue = read_catalogue(nodes, set_name)
        version, layout = _read(catalogue, schema)
        prefix = entity_prefix(set_name, version.version)
        key = entity_keys(prefix, [tuple(part.encode(errors="surrogateescape") for part in entity)])[0]
        pointer, value = nodes.mget([layout.pointer, key])
        if pointer is None and layout.schema.kind == "streaming":
            raise never_written(layout)
        found: dict[str, Any] = {
            "kind": layout.schema.kind,
            "version": version.version,
            "key": key.decode(errors="backslashreplace"),
        }
        found["schema"] = tuple(schema_lines(layout.schema))
        if value is None:
            _hold_against_another(nodes, set_name, prefix, len(entity))
            return StoredEntity(**found, problem="there is no value for this entity")
        decoded = layout.decode([value])
        if decoded.corrupt:
            problem = f"its {len(value)} bytes are no value of this version's {layout.size} bytes"
            return StoredEntity(**found, problem=problem)
        left_ms = nodes.call(key, "PTTL", key)
        writer = version.source if layout.schema.kind == "loaded" else _writer(nodes, layout, value)
    return StoredEntity(
        **found,
        event_time=_time(decoded.event_time[0]),
        write_time=_time(decoded.write_time[0]),
        event_time_us=int(decoded.event_time[0]),
        writer=writer or None,
        columns={name: column[0].tolist() for name, column in decoded.columns.items()},
        expires_in_s=left_ms / 1000 if left_ms >= 0 else None,
    )


def _read(catalogue: Catalogue, schema: FeatureSchema | None) -> tuple[Version, Layout]:
    """Which version a lookup reads, and its layout."""
    name, current, live = catalogue.set_name, catalogue.current, catalogue.live()
    if schema is not None and schema.kind == "streaming":
        layout = Layout.of(schema)
        return catalogue.find(layout.live_version) or _unlisted(layout.live_version, layout), layout
    if current is None and (live is None or schema is not None):
        raise never_loaded(name)
    if current is None:
        assert live is not None
        return live, Layout.of(schema_from_lines(name, live.columns, "streaming"))
    layout = Layout.of(schema_from_lines(name, current.columns))
    return catalogue.find(current.version) or _unlisted(current.version, layout), layout


def _unlisted(version: str, layout: Layout) -> Version:
    """A version that the catalogue does not have; lookups ask pointers alone."""
    return Version(version, "complete", layout.schema_hash, tuple(schema_lines(layout.schema)), 0.0, 0.0)


def _writer(nodes: Nodes, layout: Layout, value: bytes) -> str:
    number, key = layout.writer_of(value), writers_key(layout.schema.name)
    names = map(_name, nodes.call(key, "HVALS", key))
    return next((name for name in names if writer_number(name) == number), f"{number:08x}")


def _name(about: bytes) -> str:
    try:
        return str(json.loads(about)["name"])
    except (ValueError, KeyError, TypeError):
        return ""


def _hold_against_another(nodes: Nodes, set_name: str, prefix: bytes, parts: int) -> None:
    """Whether the key of any other entity has as many parts; the catalogue does not know.

    Raises:
        ConfigError: it has not.
    """
    keys = next(nodes.scan(prefix + b"*"), [])
    known = entity_parts(prefix, keys[0]) if keys else None
    if known is not None and len(known) != parts:
        raise ConfigError(
            f"The keys of feature set {set_name!r} have {len(known)} part{'s' * (len(known) != 1)}, and {parts} "
            f"{'were' if parts != 1 else 'was'} given; write one argument per part, in the order of the set's key."
        )


def _time(microseconds: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=int(microseconds))
    except OverflowError:
        return None
