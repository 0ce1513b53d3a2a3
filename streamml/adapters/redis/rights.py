"""The commands that are really sent to Redis, and the least ACL rule for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

READING: Final = ("mget", "ping")
"""What a worker sends: `streamml.adapters.redis.store`."""

WATCHING: Final = ("client|caching", "client|tracking")
"""What a worker sends besides where a set has a near cache: `streamml.adapters.redis.tracking`."""

CLUSTER: Final = ("asking", "cluster|slots")
"""What is sent to the nodes of a cluster besides: `streamml.adapters.redis.nodes`."""

LOADING: Final = (
    "exists",
    "exec",
    "get",
    "hdel",
    "hset",
    "hvals",
    "mget",
    "mset",
    "msetnx",
    "multi",
    "pttl",
    "scan",
    "set",
    "unlink",
    "watch",
)
"""What `streamml features` sends: loading, listing, showing, rolling back and pruning versions."""


WRITING: Final = ("evalsha", "exec", "get", "hset", "hvals", "multi", "script|load", "set", "watch")
"""What a `streamml.features.FeatureWriter` sends, and its script."""


KEEPING: Final = ("evalsha", "ping", "script|load", "set")
"""What a worker sends, and its script, that keeps latest predictions: `streamml.adapters.redis.latest_writer`."""


LOOKING_UP: Final = ("mget",)
"""What a `streamml.latest.LatestPredictions` sends."""


def least_rule(
    user: str,
    sets: Iterable[str],
    commands: Sequence[str],
    *,
    database: int = 0,
    latest: str | None = None,
    cluster: bool = False,
) -> str:
    """The line for ``redis-cli`` that lets ``user`` send ``commands`` for the keys of these sets, and nothing else.

    It is understood from Redis 6 on. Writing ``%R~`` instead of ``~`` (Redis 7) adds nothing where all commands only read.

    Args:
        database: number in the URL; another than 0 has to be chosen by a command.
        latest: name of the latest predictions that are meant.
        cluster: whether it is a user of all nodes of a cluster, where each value is read by a command of its own.
    """
    # Names of sets have no characters that a pattern would take otherwise (`streamml.adapters.redis.keys`).
    keys = [f"~streamml:{written}:*" for name in sets for written in (f"{{{name}}}", name)]
    keys += [f"~streamml.latest:{latest}:*"] if latest else []
    if cluster:
        commands = [*("get" if one == "mget" else one for one in commands), *CLUSTER]
    allowed = [f"+{command}" for command in (*dict.fromkeys(commands), *(("select",) if database else ()))]
    return " ".join(["ACL SETUSER", user, "reset on >PASSWORD", *keys, *allowed])
