"""The options that name a range of a topology's input, and what they come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from streamml.cli.options import added

if TYPE_CHECKING:
    from streamml.ops.replay.span import Asked

F = TypeVar("F", bound=Callable[..., Any])


def range_options(done: str) -> Callable[[F], F]:
    """Add the options that `asked_range` reads.

    Args:
        done: what is not done any more from the end on.
    """
    return added(
        click.option(
            "--from", "start", required=True, help="An offset, or a time with its zone, as 2026-01-31T10:00:00Z."
        ),
        click.option("--to", "end", required=True, help=f"The same; what is there is not {done} any more."),
        click.option(
            "--by", type=click.Choice(["record", "event"]), default="record", show_default=True, help="Whose times."
        ),
        click.option("--slack", help="With --by event: how far times of events and records may be apart, as 10m."),
        click.option("--partitions", help="NUMBER or TOPIC/NUMBER, separated by commas; default: all."),
        click.option("--what-is-left", is_flag=True, help="Go on where retention has removed a part of the range."),
    )


def asked_range(options: dict[str, Any]) -> Asked:
    """The range that the options name; takes their values out of ``options``."""
    from streamml.ops.replay.span import Asked

    start, end, by, slack, partitions, left = map(
        options.pop, ("start", "end", "by", "slack", "partitions", "what_is_left")
    )
    chosen = tuple(one.strip() for one in (partitions or "").split(",") if one.strip())
    return Asked(start, end, by, slack, chosen, left)
