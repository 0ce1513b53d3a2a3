"""A replay as it is recorded on the broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

RECORDED: Final = "recorded"
State = Literal["running", "done", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one partition: offsets from ``start`` up to, without, ``end``."""

    topic: str
    partition: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Replay:
    """What was replayed, with what, into where, and how it ended.

    Args:
        number: of the replay, 1 or more; the revision of its predictions (promise D3).
        topology: name of the topology.
        spans: what is read.
        topic_ids: of the source's topics; a topic made anew has another.
        into: topic of its predictions.
        letters: topic of its dead letters.
        models: version by name.
        features: ``"live"``, ``"recorded"``, or ``set=version``, several separated by commas.
        where: condition on events; ``None``: all of them.
        by: ``user@host``.
        started_ms, ended_ms: ms since 1970 UTC; ``ended_ms`` is ``None`` while it is not over.
        state: how it stands, as far as the broker was told.
        counts: records ``consumed``, ``predictions``, ``dead_letters``, ``filtered``.
        published_ms: when its predictions were last published; ``None``: never.
        within_us: events are replayed whose own time is in it, from the first up to, without, the second, in µs since 1970 UTC;
            ``None``: whatever their time.
        max_ratio: share of dead letters past which it stops.
        reason: why it is not done, for people.
        died: sessions of it whose process died; ``counts`` lack what these did last.
    """

    number: int
    topology: str
    spans: tuple[Span, ...]
    topic_ids: dict[str, str]
    into: str
    letters: str
    models: dict[str, str]
    features: str
    where: str | None
    by: str
    started_ms: int
    ended_ms: int | None = None
    state: State = "running"
    counts: dict[str, int] = field(default_factory=dict)
    published_ms: int | None = None
    within_us: tuple[int, int] | None = None
    max_ratio: float = 1.0
    reason: str = ""
    died: int = 0
