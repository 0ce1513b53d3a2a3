"""How far a replay is, on stderr while it runs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from streamml.ops.replay.replay import Replay
    from streamml.settings.settings import Settings
    from streamml.topology.topology import Topology

_EVERY_S: Final = 1.0
_LINE_EVERY_S: Final = 30.0
_JOIN_S: Final = 15.0


@contextmanager
def progress(topology: Topology, settings: Settings, replay: Replay) -> Iterator[None]:
    """Meanwhile rate and time left are shown; where nobody looks, a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from streamml.errors import StreamMLError
    from streamml.ops.replay.standing import follow
    from streamml.runtime.meanwhile import meanwhile

    total = sum(span.end - span.start for span in replay.spans)
    bar = Progress(
        TextColumn("replay {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    probe = follow(topology, settings, replay)
    task = bar.add_task(str(replay.number), total=total, rate="")

    def watch(ended: threading.Event) -> None:
        first: tuple[float, int] | None = None
        line_at = time.monotonic() + _LINE_EVERY_S
        while not ended.wait(_EVERY_S):
            try:
                done = probe()
            except StreamMLError:
                continue  # The replay itself says so.
            now = time.monotonic()
            first = first or (now, done)
            rate = (done - first[1]) / (now - first[0]) if now > first[0] else 0.0
            bar.update(task, completed=done, rate=f"{rate:,.0f}/s")
            if bar.disable and now > line_at:
                line_at = now + _LINE_EVERY_S
                left = f", {(total - done) / rate:,.0f} s left" if rate else ""
                click.echo(f"Replay {replay.number}: {done:,} of {total:,} offsets, {rate:,.0f}/s{left}", err=True)

    with bar, meanwhile(watch, "streamml-progress", join_s=_JOIN_S):
        yield
