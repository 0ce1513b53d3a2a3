"""Carries a replay out, and records how it stands."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.holder import SESSION_S, KafkaHolder
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.adapters.kafka.probe import GroupProbe
from streamml.clock import SystemClock
from streamml.compose.parts import Parts
from streamml.compose.recorded import RecordedLookups, feature_log_of
from streamml.compose.replay import Stretch, compose_replay
from streamml.engine.pace import Pace
from streamml.errors import ConfigError, DeadLetterLimitExceeded, FatalError, StreamMLError, TransientError
from streamml.ops.pause import who
from streamml.ops.replay.features import recorded_sets
from streamml.ops.replay.guard import held_back
from streamml.ops.replay.registry import claim, find, read_replay, record, replays, replays_topic
from streamml.ops.replay.replay import RECORDED, Replay
from streamml.ops.replay.standing import holders, name_of, offsets_done, positions_of
from streamml.ops.replay.target import check_target, make_target
from streamml.ops.replay.topology import replayed
from streamml.ops.run import Composable, Goal, RunOptions, StopSignal, work
from streamml.runtime.meanwhile import meanwhile
from streamml.settings.settings import Settings
from streamml.telemetry.observer import Observer
from streamml.topology.topology import Topology

_LOG: Final = logging.getLogger("streamml.replay")
_LOOK_S: Final = 0.5
_COUNTED: Final = ("consumed", "predictions", "dead_letters", "filtered")


@dataclass(frozen=True, slots=True)
class Manner:
    """How a replay runs; it may be another way after a resume.

    Args:
        rate: records a second, of all workers together; ``None``: as many as can be.
        max_lag: it waits while the live group is further behind; ``None``: it never does.
        workers: processes that share its partitions.
        patience_s: how long to bear that broker or store do not answer.
    """

    rate: float | None = None
    max_lag: int | None = None
    workers: int = 1
    patience_s: float = 60.0


def begin(topology: Topology, settings: Settings, draft: Replay) -> Replay:
    """Give a planned replay its number and its topics.

    Raises:
        ConfigError: another replay took the topic meanwhile, or it has content.
        SourceUnavailable: the broker does not answer.
        FatalError: this client lacks a right.
    """
    group = settings.group or topology.name
    replay = claim(settings, group, draft)
    try:
        _check_number(settings, replay)
        # Whoever claimed first may have it; both see both claims.
        earlier = [one for one in replays(settings, group) if one.number < replay.number]
        check_target(topology, settings, replay, earlier)
        make_target(topology, settings, replay)
    except StreamMLError as error:
        record(settings, group, _ended(replay, "failed", str(error)))
        raise
    return replay


def _check_number(settings: Settings, replay: Replay) -> None:
    """Numbers begin again where the topic of replays was made anew; positions of before would pass over what is to be read."""
    group = settings.group or replay.topology
    places = positions_of(replay.spans)
    if KafkaOffsets(settings.client()).committed(name_of(group, replay.number), places):
        raise ConfigError(
            f"There was a replay {replay.number} of group {group} before, whose record is gone: the topic "
            f"{replays_topic(group)} was deleted or made anew. Start it again: it gets the next number."
        )


def resumable(topology: Topology, settings: Settings, number: int) -> Replay:
    """A replay that was begun and is not over.

    Raises:
        ConfigError: there is none, it is over, or one of its topics was deleted or made anew.
        SourceUnavailable: the broker does not answer.
    """
    group = settings.group or topology.name
    replay = find(settings, group, number)
    if replay.state in ("done", "cancelled"):
        raise ConfigError(f"Replay {number} is {replay.state}; `streamml replay start` begins another one.")
    if replay.topology != topology.name:
        raise ConfigError(f"Replay {number} is of the topology {replay.topology!r}, and not of {topology.name!r}.")
    topics = KafkaAdmin(settings.client()).topics(replay.topic_ids)
    anew = [name for name, topic_id in replay.topic_ids.items() if name not in topics or topics[name].id != topic_id]
    if anew:
        raise ConfigError(
            f"The topic {', '.join(anew)} was deleted or made anew since replay {number} began: its offsets are of another "
            "topic. Start a replay of what is there now."
        )
    _check_or_make_target(topology, settings, group, replay)
    return replay


def _check_or_make_target(topology: Topology, settings: Settings, group: str, replay: Replay) -> None:
    """Who was killed between recording a replay and making its topics has written nothing yet; what is missing later is lost."""
    found = KafkaAdmin(settings.client()).topics([replay.into, replay.letters])
    gone = [name for name in (replay.into, replay.letters) if name not in found]
    if not gone:
        return
    with closing(GroupProbe(settings.consumer(), name_of(group, replay.number))) as probe:
        if offsets_done(probe, replay):
            raise ConfigError(
                f"The topic {', '.join(gone)} was deleted since replay {replay.number} began, with what was written there. "
                "Cancel the replay, and start another one."
            )
    make_target(topology, settings, replay)


def score(
    topology: Topology,
    parts: Parts,
    settings: Settings,
    replay: Replay,
    manner: Manner,
    stop: StopSignal,
    *,
    share: int = 0,
    pace: Pace | None = None,
    started: Callable[[Composable, Observer], None] = lambda composed, observer: None,
) -> dict[str, Any]:
    """Score one worker's share of the spans until its end or a stop; returns the summary.

    Args:
        topology: as it is live.
        share: number of the worker among ``manner.workers``.

    Raises:
        DeadLetterLimitExceeded: too many dead letters.
        TransientError: broker or store have not answered for long; what was done is committed.
        StreamMLError: the worker had to stop.
    """
    group = settings.group or topology.name
    own = name_of(group, replay.number)
    spans = replay.spans[share :: manner.workers]
    ends = {where: end for where, (_, end) in positions_of(spans).items()}
    pace = pace or Pace(manner.rate and manner.rate / manner.workers, SystemClock().now())
    stretch = Stretch(own, f"worker-{share}", replay.number, positions_of(spans), replay.topic_ids)
    with ExitStack() as opened:
        probe = opened.enter_context(closing(GroupProbe(settings.consumer(), own)))
        goal = Goal(lambda: ends, lambda: probe.committed(ends))
        recorded = None
        if sets := recorded_sets(topology, replay.features):
            partly = replay.features != RECORDED
            recorded = RecordedLookups(feature_log_of(topology, settings), sets, partly=partly)
            opened.enter_context(closing(recorded))
        opened.enter_context(held_back(settings, group, topology.source.topics, manner.max_lag, pace))
        job = replayed(topology, replay)
        return work(
            lambda observer: compose_replay(job, parts, settings, stretch, pace, observer, recorded),
            goal,
            RunOptions(patience_s=manner.patience_s),
            stop,
            started=started,
        )


def carry_out(
    topology: Topology,
    settings: Settings,
    replay: Replay,
    scored: Callable[[], Mapping[str, Any]],
    stop: StopSignal,
    *,
    resumed: bool = False,
    patience_s: float = 60.0,
) -> tuple[Replay, Mapping[str, Any]]:
    """Score, with everybody kept from doing the same, and record the end; returns the replay as it is now, and the summary.

    Args:
        scored: does the work until the end or until ``stop``, and returns the summary.
        resumed: whether somebody else may still hold it, whose session has to end.

    Raises:
        ConfigError: somebody else carries it out.
        StreamMLError: as `score`; how it stands was recorded.
    """
    group = settings.group or topology.name
    told = _Told(replay.number, stop)
    with _held(settings, group, replay.number, told, resumed=resumed) as holder, _watched(holder, stop, patience_s):
        replay = find(settings, group, replay.number)
        if replay.state == "cancelled":
            raise ConfigError(f"Replay {replay.number} was cancelled.")
        if resumed:
            died = replay.died + (0 if replay.reason else 1)
            replay = replace(replay, state="running", reason="", ended_ms=None, died=died)
            record(settings, group, replay)
        try:
            summary = scored()
        except StreamMLError as error:
            _record_failure(settings, group, replay, error)
            raise _explained(error, replay) from error
        replay = _outcome(replay, summary, told)
        record(settings, group, replay)
    return replay, summary


def cancel(topology: Topology, settings: Settings, number: int) -> Replay:
    """Have a replay end where it is, for good; who carries it out hears of it within a second.

    Raises:
        ConfigError: there is none, or it is over.
        SourceUnavailable: the broker does not answer.
    """
    group = settings.group or topology.name
    replay = find(settings, group, number)
    if replay.state in ("done", "cancelled"):
        raise ConfigError(f"Replay {number} is {replay.state} already.")
    ended = _ended(replay, "cancelled", f"cancelled by {who()}")
    record(settings, group, ended)
    return ended


class _Told:
    """Hears of a cancellation."""

    def __init__(self, number: int, stop: StopSignal) -> None:
        self._number = number
        self._stop = stop
        self.cancelled: Replay | None = None

    def __call__(self, value: bytes | None) -> None:
        found = read_replay(value)
        if found is not None and found.number == self._number and found.state == "cancelled":
            self.cancelled = found
            self._stop.set()


@contextmanager
def _held(settings: Settings, group: str, number: int, told: _Told, *, resumed: bool) -> Iterator[KafkaHolder]:
    """Meanwhile nobody else carries the replay out.

    Raises:
        ConfigError: somebody does.
    """
    name = name_of(group, number)
    holder = KafkaHolder(settings.consumer(), replays_topic(group), f"{name}.running", who(), told)
    try:
        # The broker may take a moment over a group that is new; the session of one that died has to end.
        if not holder.hold(3 * SESSION_S):
            by = ", ".join(one for one in holders(settings, group, number) if not one.startswith(who())) or "somebody"
            raise ConfigError(
                f"Replay {number} is being carried out by {by}; `streamml replay cancel` ends it."
                if resumed
                else f"Replay {number} could not be begun: the broker does not say who carries it out."
            )
        yield holder
    finally:
        holder.release()


@contextmanager
def _watched(holder: KafkaHolder, stop: StopSignal, patience_s: float) -> Iterator[None]:
    """Meanwhile the replay is stopped when it is not held for so long that another process may have begun."""

    def watch(ended: threading.Event) -> None:
        while not ended.wait(_LOOK_S):
            if holder.lost_for() > patience_s:
                _LOG.warning("The broker has not let this process hold the replay for %.0f s; it stops.", patience_s)
                stop.set()
                return

    with meanwhile(watch, "streamml-replay"):
        yield


def _outcome(replay: Replay, summary: Mapping[str, Any], told: _Told) -> Replay:
    counted = _counted(replay, summary)
    if summary["caught_up"]:
        return _ended(counted, "done", "")
    if told.cancelled is not None:
        return replace(told.cancelled, counts=counted.counts, died=counted.died)
    return replace(counted, reason=f"stopped by {who()}")


def _counted(replay: Replay, summary: Mapping[str, Any]) -> Replay:
    counts = Counter(replay.counts)
    counts.update({name: summary[name] for name in _COUNTED})
    return replace(replay, counts={name: counts[name] for name in _COUNTED})


def _ended(replay: Replay, state: Any, reason: str) -> Replay:
    return replace(replay, state=state, reason=reason, ended_ms=int(SystemClock().now() * 1000))


def _record_failure(settings: Settings, group: str, replay: Replay, error: StreamMLError) -> None:
    """What goes away by itself leaves it to be resumed; a broker that cannot be told is told by nobody's session."""
    if isinstance(error, TransientError):
        stands = replace(replay, reason=str(error))
    else:
        stands = _ended(replay, "failed", str(error))
    try:
        record(settings, group, stands)
    except StreamMLError as silent:
        _LOG.warning("How replay %d stands could not be recorded: %s", replay.number, silent)


def _explained(error: StreamMLError, replay: Replay) -> StreamMLError:
    on = f"`streamml replay resume {replay.topology} {replay.number}` goes on from what is committed."
    if isinstance(error, DeadLetterLimitExceeded):
        return DeadLetterLimitExceeded(
            f"{str(error).split('. See ', maxsplit=1)[0]}. They are in {replay.letters}; cancel the replay and start another "
            f"one with other versions, or with --max-dead-letters 1 if so many are right. {on}"
        )
    if isinstance(error, ConfigError):
        return error
    kind = TransientError if isinstance(error, TransientError) else type(error)
    return kind(f"{error} {on}") if kind in (TransientError, FatalError) else error
