"""Commands that are sent without waiting for each, on one server or a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from streamml.adapters.redis.connection import Reply, Session, pack
from streamml.adapters.redis.nodes import Nodes

SCRIPTS_IN_FLIGHT: Final = 8
# One script blocks the server, and the workers that read from it, for about a millisecond.
_ROWS_PER_SCRIPT: Final = 200
_BYTES_PER_SCRIPT: Final = 1 << 17


class Line:
    """Commands on their way, for one thread: sent without waiting for each, answered in order.

    A server by itself works while the next ones are made. A cluster is waited for at each `send`, so that what one node sends on
    to another is never overtaken by what came after.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._session: Session | None = None
        self._waiting: deque[int | list[Reply]] = deque()

    def send(self, keys: Sequence[bytes], packed: Sequence[bytes]) -> None:
        """Send commands, see `Nodes.exchange`.

        Raises:
            FeatureStoreDown: a node cannot be reached; of a cluster, it does not answer, or answers with an error.
        """
        if self._nodes.clustered:
            self._waiting.append(self._nodes.exchange(keys, packed))
            return
        if self._session is None:
            self._session = self._nodes.server.connect()
        self._session.send(b"".join(packed))
        self._waiting.append(len(packed))

    def read(self) -> list[Reply]:
        """The replies to the commands of the oldest `send`.

        Raises:
            FeatureStoreDown: the server does not answer, or answers with an error.
        """
        oldest = self._waiting.popleft()
        if isinstance(oldest, list):
            return oldest
        assert self._session is not None
        return [self._session.read() for _ in range(oldest)]

    def close(self) -> None:
        """Close the connection, whatever is on its way."""
        self._waiting.clear()
        if self._session is not None:
            self._session.close()
            self._session = None


def rows_per_script(value_bytes: int) -> int:
    """How many keys with values of this size, at most, one script is given: what is sent at once has to pass within a timeout."""
    return max(1, min(_ROWS_PER_SCRIPT, _BYTES_PER_SCRIPT // max(1, value_bytes)))


def script_calls(
    nodes: Nodes, script: bytes, keys: list[bytes], keep_ms: int, values: list[bytes], most: int
) -> tuple[list[bytes], list[bytes]]:
    """Calls of a script that takes keys, how long they are kept, and a value for each key.

    Args:
        most: keys in one call, which holds up the server and all who ask it.

    Returns:
        A key of each call, and the calls as they are sent.

    Raises:
        FeatureStoreDown: as `Nodes.groups`.
    """
    parts = [group[start : start + most] for group in nodes.groups(keys) for start in range(0, len(group), most)]
    firsts, packed = [], []
    for part in parts:
        theirs = [keys[place] for place in part]
        firsts.append(theirs[0])
        packed.append(pack("EVALSHA", script, len(part), *theirs, keep_ms, *[values[place] for place in part]))
    return firsts, packed
