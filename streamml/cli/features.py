"""``streamml features``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamml.cli.options import json_option, print_json, settings_of, shown_age, shown_time

if TYPE_CHECKING:
    from streamml.adapters.redis.stored import StoredEntity

_redis = click.option("--redis-url", help="Redis that has the features.")
_config = click.option("--config", type=click.Path(path_type=Path), help="Settings file; default: ./streamml.toml.")


@click.group("features")
def command() -> None:
    """Load feature sets into Redis as versions; list, look into, roll back and prune versions."""


@command.command("load")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "feature_set", required=True, help="The FeatureSet: path.py:name or module:name.")
@click.option(
    "--event-time", default="event_time", show_default=True, help="Column with the time that a row describes."
)
@click.option("--version", help="Name of the new version; default: the UTC time.")
@_redis
@_config
@json_option
def load(
    file: Path,
    feature_set: str,
    event_time: str,
    version: str | None,
    redis_url: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Load FILE (Parquet or CSV) as a new version; workers read it from the moment that it is complete."""
    from streamml.compose.locate import locate_feature_set
    from streamml.ops.features import load_file

    redis = settings_of(config, redis_url=redis_url).redis
    declared = locate_feature_set(feature_set).found
    with _progress(f"Loading {declared.name}") as progress:
        report = load_file(
            file,
            declared.schema,
            declared.key,
            url=redis.url,
            event_time=event_time,
            version=version,
            progress=progress,
            options=redis.options,
        )
    if as_json:
        print_json(asdict(report))
    else:
        click.echo(
            f"{report.set_name}: version {report.version} is current; {report.entities:,} entities from {report.rows:,} rows "
            f"in {report.seconds:.1f} s."
        )


@command.command("versions")
@click.argument("name")
@_redis
@_config
@json_option
def versions(name: str, redis_url: str | None, config: Path | None, as_json: bool) -> None:
    """List the versions of the feature set NAME."""
    from streamml.ops.features import versions as list_versions

    redis = settings_of(config, redis_url=redis_url).redis
    catalogue = list_versions(name, url=redis.url, options=redis.options)
    current = catalogue.current.version if catalogue.current else None
    if as_json:
        print_json({"set": name, "current": current, "versions": [asdict(one) for one in catalogue.versions]})
        return
    from streamml.cli.tables import print_table

    rows = [
        (
            "→" if one.version == current else "",
            one.version,
            one.state,
            "" if one.state == "live" else f"{one.entities:,}",
            shown_time(one.loaded_at),
            one.source,
        )
        for one in catalogue.versions
    ]
    print_table(f"Versions of {name}", ("", "version", "state", "entities", "loaded", "from"), rows)


@command.command("show")
@click.argument("name")
@click.argument("key", nargs=-1, required=True)
@_redis
@_config
@json_option
def show(name: str, key: tuple[str, ...], redis_url: str | None, config: Path | None, as_json: bool) -> None:
    """Show what Redis has for the entity KEY (its parts, one argument each).

    NAME is a feature set's name; or a TOPOLOGY (folder, path.py[:name] or module:name), all of whose sets with such a key are
    shown, or the path.py:name of one FeatureSet: then it is told, too, what a lookup would make of the value now.
    """
    from streamml.compose.locate import is_place, locate_feature_sets
    from streamml.ops.feature_values import explain
    from streamml.ops.features import show as show_entity

    redis = settings_of(config, redis_url=redis_url).redis
    if not is_place(name):
        found = show_entity(name, key, url=redis.url, options=redis.options)
        if as_json:
            print_json(asdict(found))
        else:
            _print_value(name, key, found)
        return
    explained = explain(locate_feature_sets(name), key, url=redis.url, options=redis.options)
    if as_json:
        print_json({"sets": [asdict(one) for one in explained]})
        return
    for one in explained:
        if one.found is not None:
            _print_value(one.set_name, key, one.found)
        click.echo(f"  {one.set_name} is {one.state}{_age(one.age_s)}. {one.verdict}")


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f", {shown_age(abs(seconds))} {'old' if seconds >= 0 else 'ahead'}"


def _print_value(name: str, key: tuple[str, ...], found: StoredEntity) -> None:
    from streamml.cli.tables import printable

    place = printable(f"{name} {' '.join(key)}")
    if found.problem is not None:
        click.echo(f"{place}: {found.problem} (version {found.version}).")
        return
    by = f" by {printable(found.writer)}" if found.writer else ""
    click.echo(
        f"{place}, {found.kind}, version {found.version}, describes {found.event_time}, written {found.write_time}{by}"
    )
    for column, value in (found.columns or {}).items():
        click.echo(f"  {column} = {value}")
    if found.expires_in_s is not None:
        click.echo(f"  Redis keeps it for another {shown_age(found.expires_in_s)}.")


@command.command("rollback")
@click.argument("name")
@click.argument("version", required=False)
@_redis
@_config
@json_option
def rollback(name: str, version: str | None, redis_url: str | None, config: Path | None, as_json: bool) -> None:
    """Make VERSION of the feature set NAME current, or the one loaded before the current one."""
    from streamml.ops.features import rollback as roll_back

    redis = settings_of(config, redis_url=redis_url).redis
    chosen = roll_back(name, version, url=redis.url, options=redis.options)
    if as_json:
        print_json({"set": name, "current": chosen.version})
    else:
        click.echo(f"{name}: version {chosen.version} is current again.")


@command.command("prune")
@click.argument("name")
@click.option("--keep", type=click.IntRange(1), default=3, show_default=True, help="Complete versions to keep.")
@_redis
@_config
@json_option
def prune(name: str, keep: int, redis_url: str | None, config: Path | None, as_json: bool) -> None:
    """Delete old versions of the feature set NAME.

    Kept are the newest ones, the current and the previous one, and whatever was loaded or in use within the last hour.
    """
    from streamml.ops.features import prune as delete_versions

    redis = settings_of(config, redis_url=redis_url).redis
    deleted = delete_versions(name, url=redis.url, keep=keep, options=redis.options)
    if as_json:
        print_json({"set": name, "pruned": deleted})
    elif deleted:
        click.echo(f"{name}: deleted {', '.join(deleted)}.")
    else:
        click.echo(f"{name}: nothing to delete; what was loaded or in use within the last hour is kept, too.")


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on stderr, to be told rows done and rows in all."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Where no person looks, a bar would leave an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
