"""An incident on real Kafka and Redis, from the wrong load to the published corrections: ``make rehearsal``.

Flights stream, a job loads weather that is all zeros, somebody notices, goes back to the features of before, scores the
stretch again, compares, publishes what changed, and exports it. In the end the prediction topic, by highest revision, has to equal
what a run without the incident gives, row by row. See docs/guide/incident.md.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from loadtests.rehearsal.outcome import Exported, different_rows, exported, of_highest_revision, without_incident
from streamml.errors import StreamMLError
from streamml.ops.demo.show import Show
from streamml.ops.demo.stage import DemoOptions

Say = Callable[[str], None]


def main() -> int:
    """Rehearse; 1 where the corrected topic is not what it should be."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.rehearsal", description=__doc__.partition(":")[0])
    parser.add_argument("--rate", type=float, default=500.0, help="departures per second")
    parser.add_argument("--seconds", type=float, default=8.0, help="before the incident, of the incident, and after it")
    parser.add_argument("--page", type=Path, default=Path("rehearsal.html"), help="where the comparison's page goes")
    parser.add_argument(
        "--out", type=Path, help="new folder for the exported stretch; default: one beside temporary files"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    # What was started is to be ended, however this ends.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = Console(stderr=True, highlight=False)

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    out = arguments.out or Path(tempfile.mkdtemp(prefix="streamml-rehearsal-")) / "corrected"
    # What a replay finds of the last hours is not what there was then, and every prediction would change.
    options = DemoOptions(rate=arguments.rate, fast=False)
    with Show(options, lambda text: say(f"[dim]{text} …[/]"), page=arguments.page.absolute()) as show:
        try:
            result = rehearse(show, say, arguments.seconds, out.absolute())
        except StreamMLError as error:
            say(f"Error: {error}")
            return error.exit_code
    if arguments.json:
        print(json.dumps(result, indent=2))
    return 0 if result["passed"] else 1


def rehearse(show: Show, say: Say, seconds: float, out: Path) -> dict[str, Any]:
    """The story, and how it ended.

    Args:
        seconds: before the incident, of the incident, and after it.
        out: new folder for what is exported.
    """
    show.start()
    show.streamml.tell = lambda text: say(f"[bold]$ {text}[/]")
    _stream_on(show, seconds)
    before = _quality(show, say, "All is well.")

    say("\nThe provider of the weather is away, and the job that loads it writes zeros:")
    show.incident.break_features()
    _wait(show)
    _stream_on(show, seconds)
    while not show.snapshot()["referee"]["wrong"]:
        _stream_on(show, 0.1)
    during = _quality(show, say, "Somebody notices.")

    say("\nBack to the features of before; what was scored meanwhile is scored again and compared:")
    show.incident.mend()
    _wait(show)
    compared = show.incident.compared["counts"]
    say(f"{compared['changed']:,} predictions changed, {compared['same']:,} are the same. {show.incident.page}")

    say("\nPublish what changed:")
    show.incident.publish()
    _wait(show)
    _stream_on(show, seconds)
    show.end_stream()
    while not show.over:
        _stream_on(show, 0.1)
    after = _quality(show, say, "All is well again.")
    told = show.finish()

    say("\nThe corrected stretch as training data, with the features that the model saw:")
    table = _export(show, say, out)

    say("\nThe same flights without an incident, by another group into another topic, to compare with …")
    reference = without_incident(show.streamml.settings)
    corrected = of_highest_revision(show.streamml.settings)
    different = different_rows(corrected, reference)
    passed = not different and len(corrected) == len(reference) == told["departures"]
    passed &= table.rows == table.with_features == compared["rows"]
    passed &= table.corrected == compared["changed"] <= table.with_zeros
    say(
        f"{len(corrected):,} predictions, by highest revision; {len(reference):,} without the incident; "
        f"{len(different):,} differ. [bold]{'Passed' if passed else 'Failed'}.[/]"
    )
    quality = {"before": before, "during": during, "after": after}
    return {
        "passed": passed,
        "predictions": len(corrected),
        "without_incident": len(reference),
        "different": len(different),
        "quality": quality,
        "compared": compared,
        "published": dict(show.incident.published),
        "exported": asdict(table),
        "referee": told["referee"],
    }


def _stream_on(show: Show, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        show.tick()
        time.sleep(0.1)


def _wait(show: Show) -> None:
    while show.incident.busy and show.incident.error is None:
        show.tick()
        time.sleep(0.1)
    show.incident.wait()


def _export(show: Show, say: Say, out: Path) -> Exported:
    incident = show.incident
    show.streamml("export", incident.topology, *incident.stretch, "--out", str(out))
    found = exported(out, incident.replay)
    say(
        f"{found.rows:,} rows; {found.corrected:,} have the corrected prediction; {found.with_features:,} have the features that the live "
        f"run logged, the zeros in {found.with_zeros:,} of them."
    )
    return found


def _quality(show: Show, say: Say, how: str) -> dict[str, Any]:
    now = show.snapshot()
    figures, referee = now["quality"], now["referee"]
    say(
        f"{how} {referee['predicted']:,} predictions, AUC {figures['auc']:.4f} (by departure delay alone "
        f"{figures['baseline_auc']:.4f}), wrong {referee['wrong']:,}, corrected {referee['corrected']:,}"
    )
    return {**figures, "wrong": referee["wrong"], "corrected": referee["corrected"]}


if __name__ == "__main__":
    sys.exit(main())
