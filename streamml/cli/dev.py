"""``streamml dev``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from streamml.cli.options import json_option, print_json

_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path(".streamml/dev"),
    show_default=True,
    help="State, data and logs of this stack.",
)

_ELSEWHERE = "a stack belongs to the folder of its `streamml dev up`: go there, or name its state by --folder."


@click.group("dev")
def command() -> None:
    """Real Apache Kafka and Redis on this machine, without containers: up, down, status."""


@command.command("up")
@_folder
@click.option("--kafka-port", type=click.IntRange(1, 65_535), help="Default: a free one, kept from then on.")
@click.option("--redis-port", type=click.IntRange(1, 65_535), help="Default: a free one, kept from then on.")
@json_option
def up(folder: Path, kafka_port: int | None, redis_port: int | None, as_json: bool) -> None:
    """Start Kafka and Redis in the background. What runs already stays; data survives restarts.

    Prints two exports: eval "$(streamml dev up)" sets them in this shell.
    """
    from streamml.ops.embedded.stack import Stack

    state = Stack(folder).up(
        lambda text: click.echo(f"{text} …", err=True), kafka_port=kafka_port, redis_port=redis_port
    )
    if as_json:
        print_json(state.document())
        return
    # Standard output has the exports alone, so that a shell can take them.
    how = ' To use them in this shell, paste this, or type eval "$(streamml dev up)":' if sys.stdout.isatty() else ""
    click.echo(f"Kafka and Redis are up.{how}", err=True)
    click.echo(f"export STREAMML_BROKERS={state.brokers}")
    click.echo(f"export STREAMML_REDIS_URL={state.redis_url}")


@command.command("down")
@_folder
@json_option
def down(folder: Path, as_json: bool) -> None:
    """End what `up` started, and nothing else. Data stays."""
    from streamml.ops.embedded.stack import Stack

    stack = Stack(folder)
    ended = stack.down()
    if as_json:
        print_json({"ended": ended, "folder": str(stack.folder)})
    elif ended:
        click.echo(f"Ended {' and '.join(ended)}.")
    else:
        click.echo(f"Nothing was running in {stack.folder}; {_ELSEWHERE}")


@command.command("status")
@_folder
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Say what is up, where."""
    from streamml.ops.embedded.stack import Stack

    stack = Stack(folder)
    state = stack.status()
    if as_json:
        nothing = dict.fromkeys(("brokers", "redis_url", "kafka", "redis"))
        print_json({**(nothing if state is None else state.document()), "folder": str(stack.folder)})
    elif state is None:
        click.echo(f"Nothing was ever started in {stack.folder}; `streamml dev up` does. Or {_ELSEWHERE}")
    else:
        for name, part in (("Kafka", state.kafka), ("Redis", state.redis)):
            told = f"up on 127.0.0.1:{part.port} (process {part.pid})" if part.running else "down"
            click.echo(f"{name}: {told}")
