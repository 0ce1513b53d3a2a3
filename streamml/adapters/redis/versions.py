"""What people do with the versions of a feature set: list them, go back, tidy up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
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
from streamml.adapters.redis.connection import Server, pack
from streamml.adapters.redis.keys import entity_prefix, live_key, pointer_key, set_of_pointer
from streamml.adapters.redis.layout import Layout, schema_lines
from streamml.adapters.redis.nodes import Nodes
from streamml.clock import Clock, SystemClock
from streamml.errors import ConfigError, FeaturesUnavailable
from streamml.topology.sentences import name_problem

MIN_AGE_S: Final = 3600.0


def versions(server: Server, set_name: str) -> Catalogue:
    """Every version of a set, and which one is current.

    Raises:
        ConfigError: this cannot be the name of a set.
        FeaturesUnavailable: the server does not answer.
    """
    with nodes_for(server, set_name) as nodes:
        return read_catalogue(nodes, set_name)


def loaded_sets(server: Server) -> list[str]:
    """Names of the sets that have a current version; the whole database is scanned for them.

    Raises:
        FeaturesUnavailable: the server does not answer.
    """
    with closing(Nodes(server)) as nodes:
        found = [set_of_pointer(key) for keys in nodes.scan(pointer_key("*")) for key in keys]
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

    with nodes_for(server, set_name) as nodes:
        change(nodes, set_name, decide)
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

    with nodes_for(server, set_name) as nodes:
        change(nodes, set_name, decide)
        for known in chosen:
            remove(nodes, set_name, known.version)
    return [known.version for known in chosen]


def remove(nodes: Nodes, set_name: str, version: str) -> None:
    """Delete the values of a version whose state is pruning, then its entry; no more, once a writer has come back to it."""
    for keys in nodes.scan(entity_prefix(set_name, version) + b"*"):
        if not _is_pruning(read_catalogue(nodes, set_name), version):
            return
        groups = [[keys[place] for place in group] for group in nodes.groups(keys)]
        nodes.exchange([group[0] for group in groups], [pack("UNLINK", *group) for group in groups])

    def decide(catalogue: Catalogue) -> list[Command]:
        if not _is_pruning(catalogue, version):
            return []
        # Of a streaming set, the pointer is what readers ask for first.
        return [("UNLINK", live_key(set_name, version)), forget(set_name, version)]

    change(nodes, set_name, decide)


def _is_pruning(catalogue: Catalogue, version: str) -> bool:
    known = catalogue.find(version)
    return known is not None and known.state == "pruning"


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


@contextmanager
def nodes_for(server: Server, set_name: str) -> Iterator[Nodes]:
    """What is asked about one set.

    Raises:
        ConfigError: this cannot be the name of a set.
    """
    if wrong := name_problem("Feature set", set_name):
        raise ConfigError(wrong)
    with closing(Nodes(server)) as nodes:
        yield nodes
