"""Which offsets a range means: by offsets, by the records' time, or by the events' own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.kafka.offsets import KafkaOffsets
from streamml.errors import ConfigError
from streamml.ops.offsets import picked
from streamml.ops.replay.replay import Span
from streamml.ports.source import TopicPartition
from streamml.settings.settings import Settings
from streamml.topology.duration import seconds
from streamml.topology.topology import Source

_LOCAL: Final = "local"
_DIGITS: Final = 19
_MOST_MS: Final = 253_402_300_799_999
_ZONES: Final = (
    "Say which time that is: 2026-01-31T12:00:00Z for UTC, 2026-01-31T12:00:00+01:00, or '2026-01-31T12:00:00 local' for "
    "this machine's"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A range as it was asked for.

    Args:
        start, end: an offset, or a time; the end is not part of it.
        by: whether times are those of records, or of events.
        slack: how far, as ``"10m"``, the time of an event and that of its record may be apart.
        partitions: as ``NUMBER`` or ``TOPIC/NUMBER``; none: all.
        what_is_left: take what retention has left where it has removed a part.
    """

    start: str
    end: str
    by: Literal["record", "event"] = "record"
    slack: str | None = None
    partitions: tuple[str, ...] = ()
    what_is_left: bool = False


class Gone(NamedTuple):
    """What retention has removed of a range.

    Args:
        first: offset of the first record that is there.
        records: how many there were; ``None``: some, if any.
    """

    where: TopicPartition
    first: int
    records: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """A range as offsets.

    Args:
        spans: one for each partition that has something of it.
        topic_ids: of the topics.
        within_us: see `Replay.within_us`.
        gone: what is beyond retention.
    """

    spans: tuple[Span, ...]
    topic_ids: Mapping[str, str]
    within_us: tuple[int, int] | None
    gone: tuple[Gone, ...]


class _Times(NamedTuple):
    """Both ends, ms since 1970 UTC or offsets."""

    start: int
    end: int
    start_is_time: bool
    end_is_time: bool


def find_spans(source: Source, settings: Settings, asked: Asked, now_ms: int) -> Found:
    """Which offsets the range means now.

    Raises:
        ConfigError: the range is empty, reversed, in the future, or beyond retention, or cannot be understood; with every
            problem.
        SourceUnavailable: the broker does not answer.
        FatalError: this client may not see a topic.
    """
    times, slack_ms = _read(source, asked, now_ms)
    admin, offsets = KafkaAdmin(settings.client()), KafkaOffsets(settings.client())
    topics = admin.topics(source.topics)
    problems = [
        f"There is no topic {name!r} on {settings.brokers}; see --brokers."
        for name in source.topics
        if name not in topics
    ]
    places = picked(sorted(offsets.partitions(source.topics)), asked.partitions, problems)
    _raise(problems)
    bounds = offsets.bounds(places, settled=True)
    starts = _starts(offsets, bounds, times, slack_ms)
    ends = _ends(offsets, bounds, times, slack_ms)
    since = times._replace(start=times.start - slack_ms)
    gone = [one for one in (_gone(where, bounds[where], starts[where], since) for where in places) if one is not None]
    _raise([*_beyond_end(bounds, times), *([] if asked.what_is_left else map(_told, gone))])
    spans = tuple(
        Span(*where, max(starts[where].offset, bounds[where][0]), ends[where])
        for where in places
        if max(starts[where].offset, bounds[where][0]) < ends[where]
    )
    if not spans:
        raise ConfigError(_empty(asked, bounds))
    within = (times.start * 1000, times.end * 1000) if asked.by == "event" else None
    return Found(spans, {name: one.id for name, one in topics.items()}, within, tuple(gone))


def _read(source: Source, asked: Asked, now_ms: int) -> tuple[_Times, int]:
    """The range in numbers, and the slack in ms."""
    problems: list[str] = []
    (start, start_is_time), (end, end_is_time) = (
        _point(name, text, problems) for name, text in (("--from", asked.start), ("--to", asked.end))
    )
    slack_ms = _slack(source, asked, problems)
    if asked.by == "event" and not problems and not (start_is_time and end_is_time):
        problems.append("With --by event both ends of the range are times.")
    _raise(problems)
    if start_is_time == end_is_time and start >= end:
        how = "empty" if start == end else "reversed"
        problems.append(f"The range is {how}: it goes from {asked.start} up to, without, {asked.end}.")
    for name, text, point, is_time in (
        ("--from", asked.start, start, start_is_time),
        ("--to", asked.end, end, end_is_time),
    ):
        if is_time and point > now_ms:
            now = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="seconds")
            problems.append(f"{name} {text} is in the future; it is {now} now.")
    _raise(problems)
    return _Times(start, end, start_is_time, end_is_time), slack_ms


def time_ms(text: str) -> int:
    """A time as ms since 1970 UTC.

    Raises:
        ConfigError: it is none, or has no zone.
    """
    problems: list[str] = []
    found, is_time = _point("The time", text, problems)
    if not is_time and not problems:
        problems.append(f"{text!r} is no time like 2026-01-31T12:00:00Z.")
    _raise(problems)
    return found


def _point(name: str, text: str, problems: list[str]) -> tuple[int, bool]:
    """An offset, or ms since 1970 UTC; and whether it is a time."""
    text = text.strip()
    if text.isdecimal() and len(text) < _DIGITS:
        return int(text), False
    bare = text.removesuffix(_LOCAL).strip()
    try:
        time = datetime.fromisoformat(bare)
        found = math.floor(time.timestamp() * 1000)
    except (ValueError, OverflowError):
        problems.append(f"{name} {text!r} is neither an offset nor a time like 2026-01-31T12:00:00Z.")
        return 0, False
    if time.tzinfo is None and bare == text:
        problems.append(f"{name} {text!r} has no zone. {_ZONES}.")
    elif time.tzinfo is not None and bare != text:
        problems.append(f"{name} {text!r} has a zone, and is said to be local, too. {_ZONES}.")
    if found < 0:
        problems.append(f"{name} {text!r} is before 1970, and so is no record's time.")
    return found, True


def _slack(source: Source, asked: Asked, problems: list[str]) -> int:
    if asked.by == "record":
        if asked.slack is not None:
            problems.append("--slack belongs to --by event.")
        return 0
    if source.event_time is None:
        problems.append("The topology names no event_time of its source, so a range goes by the time of records.")
    if asked.slack is None:
        problems.append(
            "--by event needs --slack, as 10m: how far the time of an event and that of its record may be apart. What is "
            "further apart is not found."
        )
        return 0
    try:
        return min(round(seconds(asked.slack) * 1000), _MOST_MS)
    except ValueError as error:
        problems.append(f"--slack: {error}")
        return 0


class _Start(NamedTuple):
    offset: int
    timestamp: int


_Bounds = Mapping[TopicPartition, tuple[int, int]]


def _starts(offsets: KafkaOffsets, bounds: _Bounds, times: _Times, slack_ms: int) -> dict[TopicPartition, _Start]:
    if not times.start_is_time:
        return {where: _Start(times.start, 0) for where in bounds}
    first = offsets.first_at(bounds, max(0, times.start - slack_ms))
    return {
        where: _Start(*first[where]) if first[where][0] >= 0 else _Start(high, 0) for where, (_, high) in bounds.items()
    }


def _ends(offsets: KafkaOffsets, bounds: _Bounds, times: _Times, slack_ms: int) -> dict[TopicPartition, int]:
    if not times.end_is_time:
        return {where: min(times.end, high) for where, (_, high) in bounds.items()}
    behind = offsets.at(bounds, times.end + slack_ms)
    # A record that no transaction has ended for yet is nobody's.
    return {where: min(behind[where], high) if behind[where] >= 0 else high for where, (_, high) in bounds.items()}


def _gone(where: TopicPartition, bounds: tuple[int, int], start: _Start, times: _Times) -> Gone | None:
    low, high = bounds
    if not times.start_is_time:
        return Gone(where, low, low - start.offset) if start.offset < low else None
    # What the first record comes after is not known any more.
    if low > 0 and start.offset == low and (low == high or start.timestamp > times.start):
        return Gone(where, low, None)
    return None


def _told(gone: Gone) -> str:
    lost = "records of the range may have" if gone.records is None else f"{gone.records:,} offsets of the range have"
    return (
        f"{gone.where} begins at offset {gone.first}: {lost} been removed by retention. With --what-is-left the rest is "
        "replayed; or begin later."
    )


def _beyond_end(bounds: _Bounds, times: _Times) -> Iterable[str]:
    if not times.end_is_time:
        yield from (
            f"--to {times.end} is in the future of {where}, which ends at offset {high}; choose --partitions, or a lower one."
            for where, (_, high) in bounds.items()
            if times.end > high
        )


def _empty(asked: Asked, bounds: _Bounds) -> str:
    there = ", ".join(f"{where} from {low} up to {high}" for where, (low, high) in bounds.items())
    return f"The range is empty: there is no record from {asked.start} up to, without, {asked.end}. There is {there}."


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise ConfigError(list(problems))
