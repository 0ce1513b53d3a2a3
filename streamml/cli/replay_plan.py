"""The plan of a replay, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from streamml.ops.replay.plan import Plan
    from streamml.ops.replay.run import Manner


def show_plan(plan: Plan, manner: Manner) -> None:
    """On stderr: stdout has the summary."""
    draft = plan.draft
    click.echo(f"Replay of {draft.topology}: {plan.events:,} offsets at most", err=True)
    for span in draft.spans:
        click.echo(
            f"  {span.topic}[{span.partition}]  {span.start} up to {span.end}: {span.end - span.start:,}", err=True
        )
    for one in plan.gone:
        lost = "some records, if any," if one.records is None else f"{one.records:,} offsets"
        click.echo(f"  {one.where} begins at {one.first}: {lost} of the range are gone", err=True)
    models = ", ".join(f"{name}@{version}" for name, version in draft.models.items())
    lines = {
        "models": models,
        "features": draft.features,
        "where": draft.where,
        "into": draft.into.replace("{number}", "NUMBER"),
        "dead letters": draft.letters.replace("{number}", "NUMBER"),
        "time": f"unknown, as {plan.told_by}" if plan.seconds is None else f"{_duration(plan.seconds)}, {plan.told_by}",
        "waits": "never"
        if manner.max_lag is None
        else f"while the live group is over {manner.max_lag:,} records behind",
    }
    for name, value in lines.items():
        if value:
            click.echo(f"  {name}: {value}", err=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"about {hours} h {minutes} min" if hours else f"about {minutes} min {rest} s" if minutes else f"about {rest} s"
    )
