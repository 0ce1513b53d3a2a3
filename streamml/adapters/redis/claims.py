"""A load's hold on the version that it writes: claimed under a name that nobody else has, and undone where the load fails."""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import replace
from itertools import count
from typing import Final

from streamml.adapters.redis.catalogue import Catalogue, Command, Version, change, new_version_name, put
from streamml.adapters.redis.connection import ServerAway
from streamml.adapters.redis.layout import Layout, schema_lines
from streamml.adapters.redis.nodes import Nodes
from streamml.adapters.redis.versions import remove
from streamml.engine.retry import Backoff
from streamml.errors import ConfigError, FeaturesUnavailable, LoadUndone

_log = logging.getLogger(__name__)
BACK_WITHIN_S: Final = 60.0
"""How long a server that went away under a load is waited for."""


def claim(nodes: Nodes, wanted: str | None, source: str, layout: Layout, now: float) -> Version:
    """Enter the version into the catalogue, under a name that nobody else has."""
    lines = tuple(schema_lines(layout.schema))
    claimed: list[Version] = []

    def decide(catalogue: Catalogue) -> list[Command]:
        taken = [known.version for known in catalogue.versions]
        name = wanted or new_version_name(now, taken)
        if name in taken:
            raise ConfigError(f"Version {name!r} of feature set {catalogue.set_name!r} exists; choose another name.")
        claimed.append(Version(name, "loading", layout.schema_hash, lines, now, now, source=source))
        return [put(catalogue.set_name, claimed[-1])]

    change(nodes, layout.schema.name, decide)
    return claimed[-1]


def abandon(nodes: Nodes, set_name: str, claimed: Version) -> None:
    """Remove what a failed load has written. Where that fails too, pruning will do it."""
    try:
        _undo(nodes, set_name, claimed)
    except FeaturesUnavailable as error:
        _log.warning("Version %s of feature set %s is left for pruning: %s", claimed.version, set_name, error)


def interrupted(nodes: Nodes, set_name: str, claimed: Version, error: ServerAway) -> FeaturesUnavailable:
    """Remove what was written as soon as the server is back; returns what is to be said."""
    said = f"{error} That ended the load of version {claimed.version!r} of feature set {set_name!r}."
    end = time.monotonic() + BACK_WITHIN_S
    for attempt in count(1):
        try:
            if _undo(nodes, set_name, claimed):
                return LoadUndone(f"{said} What it had written is deleted, and nothing else has changed; load again.")
            return FeaturesUnavailable(
                f"{said} The version was complete by then, or is no more there: see `streamml features versions {set_name}`, and "
                "where it is not the current one, load again; that is safe."
            )
        except FeaturesUnavailable as again:
            if not isinstance(again, ServerAway) or time.monotonic() > end:
                return FeaturesUnavailable(
                    f"{said} What it had written could not be deleted: {again} Load again when Redis is back, which is safe; "
                    f"`streamml features prune {set_name}` deletes what was left."
                )
        threading.Event().wait(Backoff().delay(attempt, random.random()))  # noqa: S311  jitter
    raise AssertionError


def _undo(nodes: Nodes, set_name: str, claimed: Version) -> bool:
    """Whether the version was not complete, nor somebody else's; then all of it is deleted."""
    ours: list[bool] = []

    def decide(catalogue: Catalogue) -> list[Command]:
        known = catalogue.find(claimed.version)
        # A replica that took over may not have heard of the claim.
        begun = known is None or (known.state in ("loading", "pruning") and known.loaded_at == claimed.loaded_at)
        ours.append(begun)
        return [put(set_name, replace(claimed, state="pruning"))] if begun else []

    change(nodes, set_name, decide)
    if ours[-1]:
        remove(nodes, set_name, claimed.version)
    return ours[-1]


def is_loading(catalogue: Catalogue, entry: Version) -> bool:
    """Whether this load still owns its version: a load that gave no sign of life for long may have been pruned."""
    known = catalogue.find(entry.version)
    return known is not None and known.state == "loading" and known.loaded_at == entry.loaded_at
