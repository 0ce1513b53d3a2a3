"""The command line of `features_app`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from streamml.errors import ConfigError
from streamml.settings.settings import Settings
from streamml.settings.sources import read_settings
from streamml.topology.duration import seconds
from streamml.topology.sentences import topic_problem
from topologies.flight_delay.arrivals_topic import ARRIVALS, DEAD_LETTERS

_SPANS: Final[Mapping[str, tuple[str, str]]] = {"--disorder": ("0s", "365d"), "--stuck-after": ("5s", "1d")}
"""Least and most of each duration. Below its least, one that reads its windows in looks as if it stood still."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is this app's own; the rest is streamml's settings.

    Args:
        arrivals, dead_letters: topics.
        group: consumer group.
        disorder: how much later than the latest before it an arrival may come and cost nothing; later ones count as well, and cost a
            look back into the topic.
        stuck_after_s: this long without progress while arrivals wait ends the process.
        create_topics: whether to make what is missing.
    """

    arrivals: str = ARRIVALS
    dead_letters: str = DEAD_LETTERS
    group: str = "flight-delay-features"
    disorder: timedelta = timedelta(hours=1)
    stuck_after_s: float = 60.0
    create_topics: bool = False


def read_options(arguments: Sequence[str] | None) -> tuple[Options, Settings]:
    """Options and settings of a command line; ``None``: of this process.

    Raises:
        ConfigError: every problem of the options, or of the settings.
        SystemExit: the parser has said what is wrong, or has shown its help.
    """
    given = _parser().parse_args(arguments)
    spans = {"--disorder": given.disorder, "--stuck-after": given.stuck_after}
    problems = [*_of_names(given), *(problem for flag, text in spans.items() for problem in _of_span(flag, text))]
    if problems:
        raise ConfigError(problems)
    options = Options(
        given.topic,
        given.dead_letters,
        given.group,
        timedelta(seconds=seconds(given.disorder)),
        seconds(given.stuck_after),
        given.create_topics,
    )
    return options, read_settings({"brokers": given.brokers, "redis.url": given.redis_url}).settings


def _parser() -> argparse.ArgumentParser:
    usual = Options()
    parser = argparse.ArgumentParser(
        prog="python -m topologies.flight_delay.features_app",
        description="Keeps the features airport_recent and carrier_recent fresh from the topic of arrivals.",
    )
    parser.add_argument("--brokers", help="host:port of brokers, separated by commas")
    parser.add_argument("--redis-url", help="Redis that has the features")
    parser.add_argument("--group", default=usual.group, help="consumer group; default: %(default)s")
    parser.add_argument("--topic", default=usual.arrivals, help="arrivals, in one partition; default: %(default)s")
    parser.add_argument("--dead-letters", default=usual.dead_letters, help="topic; default: %(default)s")
    parser.add_argument("--disorder", default="1h", help="how late arrivals may usually come; default: %(default)s")
    parser.add_argument("--stuck-after", default="60s", help="end without progress for so long; default: %(default)s")
    parser.add_argument("--create-topics", action="store_true", help="make the topics that are missing")
    return parser


def _of_names(given: Any) -> Iterator[str]:
    for flag, name in {"--topic": given.topic, "--dead-letters": given.dead_letters}.items():
        if wrong := topic_problem(f"{flag}:", name):
            yield wrong
    if given.topic == given.dead_letters:
        yield f"--dead-letters: {given.topic!r} is the topic of arrivals already; dead letters need one of their own."
    if not given.group:
        yield "--group: it is empty; give the group a name."


def _of_span(flag: str, text: str) -> Iterator[str]:
    least, most = _SPANS[flag]
    try:
        if not seconds(least) <= seconds(text) <= seconds(most):
            yield f"{flag}: {text} is out of bounds; it is {least} at least and {most} at most."
    except ValueError as error:
        yield f"{flag}: {error}"
