"""The command ``streamml``: finds the subcommand, and turns errors into sentences and exit codes."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from typing import Any, Final

import click

from streamml.errors import ConfigError, StreamMLError

_LOG: Final = logging.getLogger("streamml.cli")
COMMANDS: Final = {
    "demo": "Real flights through real Kafka and Redis, with faults at a key press.",
    "run": "Run a topology's workers.",
    "pause": "Have all workers of a topology take no more records.",
    "resume": "Have them go on, after a storm of dead letters too.",
    "check": "List every problem of a topology.",
    "predict": "Try a topology on a file of events; no broker, no Redis.",
    "model": "Convert a trained scikit-learn or LightGBM model to ONNX, and show how far the two differ.",
    "topics": "Make the topics of a topology.",
    "acls": "Print the least rights on Kafka and Redis that a topology's worker needs.",
    "features": "Load feature sets into Redis; list, show, roll back and prune versions.",
    "offsets": "Show and reset the positions of a topology's group.",
    "replay": "Score a stretch of a topic again, and compare before anything is published.",
    "export": "A stretch as a table to train from: events, features as they were, predictions, labels.",
    "dlq": "List, show, redrive, export and purge dead letters.",
    "dev": "The embedded Kafka and Redis: up, down, status.",
    "bench": "Measure speed against a bare client loop.",
    "profile": "Find the step that holds a topology up.",
    "config": "Show the settings that hold.",
    "doctor": "Is this machine ready? Each check with its remedy.",
}


class LazyGroup(click.Group):
    """Imports a subcommand when it is called; their list must not cost half a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"streamml.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamml")
@click.option("-v", "--verbose", count=True, help="Say more on stderr; twice: everything.")
def cli(verbose: int) -> None:
    """Streaming near-real-time ML on a Kafka-compatible broker: your model, your topic; nothing lost.

    TOPOLOGY is a folder with a topology.py (here or under topologies/), a path.py[:name], or module:name.
    """
    from streamml.cli.log import set_up

    set_up(verbose)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ends the process.

    At once: the interpreter's own way out waits for clients, and one that does not come back must not keep a command that
    has done its work.
    """
    code = exit_code_of(arguments)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            # Whoever read this stream has gone; the exit code is for others.
            with contextlib.suppress(OSError):
                stream.flush()
    os._exit(code)


def exit_code_of(arguments: list[str] | None = None) -> int:
    """Run the command line; returns 0 done, 2 wrong use, 3 fatal, 4 fenced, 130 interrupted."""
    try:
        answer: Any = cli.main(arguments, prog_name="streamml", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Interrupted.", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # Whoever reads our output has seen enough; Python must not complain about that at exit.
        sys.stdout = None
        return 0
    except StreamMLError as error:
        _tell(error)
        return error.exit_code
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        click.echo(f"Error:{where}: {error.strerror or error}. See to it, then try again.", err=True)
        return 3
    except Exception as error:  # noqa: BLE001  told as the bug that it is, with an exit code
        _LOG.info("The traceback:", exc_info=True)
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        click.echo(
            f"Error: {told}. This is a bug in streamml; run `streamml -v …` for the traceback, and report it.", err=True
        )
        return 3
    return answer if isinstance(answer, int) else 0


def _tell(error: StreamMLError) -> None:
    problems = error.problems if isinstance(error, ConfigError) else (str(error),)
    if len(problems) == 1:
        click.echo(f"Error: {problems[0]}", err=True)
        return
    click.echo(f"{len(problems)} problems:", err=True)
    for problem in problems:
        click.echo(f"  - {problem}", err=True)
