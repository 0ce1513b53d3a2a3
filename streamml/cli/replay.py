"""``streamml replay``."""

from __future__ import annotations

import click


@click.group("replay")
def command() -> None:
    """Score a stretch of a topic again, beside live traffic: into a topic of its own, compared before it is published."""
