"""What a Redis server or the way to it does, in words. Pure; nothing here talks to a server."""

from __future__ import annotations

import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)


def what_happened(error: Exception, user: str, timeout_s: float, *, is_node: bool, tls: bool) -> str:
    """The end of a sentence that begins with the server, without secrets; and what to do.

    Args:
        error: of redis-py, or of the system.
        user: who is logged in.
        timeout_s: how long it was waited for.
        is_node: whether it is a node that a cluster has named, and nobody else.
        tls: whether it is spoken to by TLS.
    """
    # A server that does not know a command, AUTH too, repeats its arguments.
    said = str(error).partition(", with args")[0].strip().rstrip(".")
    match error:
        case redis.TimeoutError():
            silent = ", or does it not speak TLS" * tls
            return f"did not answer within {timeout_s:g} s; is it overloaded{silent}, or the network slow?"
        case BusyLoadingError():
            return "is still loading its data from disk; wait until it has."
        case AuthenticationError() | AuthorizationError():
            return f"refused the login of user {user!r}; check user name and password."
        case redis.ConnectionError() | OSError() if is_node:
            return f"cannot be reached: {said}. It is a node of a cluster; a replica takes its place, if it has one."
        case redis.ConnectionError() | OSError():
            return (
                f"cannot be reached: {said}. Name yours with --redis-url or STREAMML_REDIS_URL, or start one for "
                "development with `streamml dev up`."
            )
        case redis.ResponseError() if isinstance(error, NoPermissionError) or "NOPERM" in said:
            # In words only where a transaction was discarded for it.
            return f"does not permit this to user {user!r}: {said}; widen its ACL to what `streamml acls` prints."
        case redis.ResponseError() if isinstance(error, OutOfMemoryError) or "-OOM " in said:
            return "is out of memory; raise its maxmemory, or run `streamml features prune`."
        case redis.ResponseError() if isinstance(error, ReadOnlyError) or "-READONLY " in said:
            return "is a replica, which takes no writes; name its primary."
        case MasterDownError():
            return "is a replica that has lost its primary; wait until it has it back, or name another server."
        case _:
            return _in_a_cluster(error, said) or f"answered with an error: {said}."


def _in_a_cluster(error: Exception, said: str) -> str | None:
    """What only nodes of a cluster say; ``None``: this is none of it."""
    match error:
        case ClusterDownError():
            return (
                f"is a node of a cluster that is down: {said}. It comes back with the nodes that are gone, or when replicas "
                "take their place; `redis-cli --cluster check` tells."
            )
        case MovedError():
            return f"has sent a key on to another node ({said}) too often; do the nodes agree on who has which slot?"
        case AskError() | TryAgainError():
            return "is giving a slot to another node, which takes long; try again."
        case redis.ResponseError() if said.startswith("SELECT is not allowed in cluster"):
            return "is a node of a cluster, which has database 0 only; take the number out of the URL."
    return None
