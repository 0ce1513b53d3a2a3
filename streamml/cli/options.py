"""Options that several commands have, and how they become settings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from streamml.settings.settings import Settings
    from streamml.settings.sources import Effective

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for programs.")
_config = click.option("--config", type=click.Path(path_type=Path), help="Settings file; default: ./streamml.toml.")
_brokers = click.option("--brokers", help="host:port of brokers, separated by commas.")
_group = click.option("--group", help="Consumer group; default: the topology's name.")
_redis = click.option("--redis-url", help="Redis that has the features; of a cluster one node or, by commas, several.")


def added(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Options as one decorator; help shows them in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


settings_options = added(_config, _brokers, _group, _redis)
"""Adds the options that `settings_of` reads."""


def settings_of(config: Path | None, **flags: Any) -> Settings:
    """The settings that hold, given the values of the options; a name's ``__`` is the dot of a section.

    Raises:
        SettingsError: with every problem.
    """
    return effective_settings(config, **flags).settings


def effective_settings(config: Path | None, **flags: Any) -> Effective:
    """The same, with where each setting comes from.

    Raises:
        SettingsError: with every problem.
    """
    from streamml.settings.sources import read_settings

    named = {"redis.url" if name == "redis_url" else name.replace("__", "."): value for name, value in flags.items()}
    return read_settings(named, file=config)


def as_arguments(config: Path | None, flags: Mapping[str, Any]) -> list[str]:
    """The same options as another process gets them."""
    found = ["--config", str(config)] if config else []
    for name, value in flags.items():
        found += [f"--{name.replace('_', '-')}", str(value)] if value else []
    return found


class FiniteRange(click.FloatRange):
    """A number between bounds; NaN, which is on neither side of any, and infinity are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=None, default=str))


def shown_age(seconds: float) -> str:
    """A span of time as people say it: ``90 s``, ``2.5 h``."""
    for most, unit, size in ((120.0, "s", 1.0), (7200.0, "min", 60.0), (172_800.0, "h", 3600.0)):
        if abs(seconds) < most:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def shown_time(seconds: float, precision: str = "seconds") -> str:
    """A moment as people read it; the number where no calendar has it, as anybody may have written it."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s"
    return f"{moment.replace(tzinfo=None).isoformat(' ', precision)}Z"
