"""``streamml dev``."""

from __future__ import annotations

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


@click.group("dev")
def command() -> None:
    """Real Apache Kafka and Redis on this machine, without containers: up, down, status."""


@command.command("up")
@_folder
@click.option("--kafka-port", type=click.IntRange(1, 65_535), help="Default: a free one, kept from then on.")
@click.option("--redis-port", type=click.IntRange(1, 65_535), help="Default: a free one, kept from then on.")
@json_option
def up(folder: Path, kafka_port: int | None, redis_port: int | None, as_json: bool) -> None:
    """Start Kafka and Redis in the background. What runs already stays; data survives restarts."""
    from streamml.ops.embedded.stack import Stack

    state = Stack(folder).up(
        lambda text: click.echo(f"{text} …", err=True), kafka_port=kafka_port, redis_port=redis_port
    )
    if as_json:
        print_json(state.document())
        return
    click.echo("Kafka and Redis are up. To use them in this shell:\n")
    click.echo(f"  export STREAMML_BROKERS={state.brokers}")
    click.echo(f"  export STREAMML_REDIS_URL={state.redis_url}")


@command.command("down")
@_folder
@json_option
def down(folder: Path, as_json: bool) -> None:
    """End what `up` started, and nothing else. Data stays."""
    from streamml.ops.embedded.stack import Stack

    ended = Stack(folder).down()
    if as_json:
        print_json({"ended": ended})
    else:
        click.echo(f"Ended {' and '.join(ended)}." if ended else "Nothing was running.")


@command.command("status")
@_folder
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Say what is up, where."""
    from streamml.ops.embedded.stack import Stack

    state = Stack(folder).status()
    if as_json:
        print_json(None if state is None else state.document())
    elif state is None:
        click.echo(f"Nothing was ever started in {folder}; `streamml dev up` does.")
    else:
        for name, part in (("Kafka", state.kafka), ("Redis", state.redis)):
            told = f"up on 127.0.0.1:{part.port} (process {part.pid})" if part.running else "down"
            click.echo(f"{name}: {told}")
