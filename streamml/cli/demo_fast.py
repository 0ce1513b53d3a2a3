"""How the demo's views tell of the fast feature sets, and of the app that keeps them fresh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from streamml.ops.demo.freshness import COURSE, FRESH, QUIET, WINDOW_S

# Without the full block, which would touch the line above.
_LEVELS: Final = "▁▂▃▄▅▆▇"
_BESIDE: Final = 45
_FEWEST: Final = 8
_STYLES: Final = {"running": "green", "killed": "bold red", "restarting": "yellow"}


def fast_features(now: Mapping[str, Any], width: int) -> Group:
    """The part of the live view that a snapshot's ``fast_features`` and ``features_app`` make.

    Args:
        width: columns that there are.
    """
    bars = max(_FEWEST, min(COURSE, width - _BESIDE))
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(no_wrap=True)
    for name, lately in now["fast_features"].items():
        table.add_row(name, _course(lately["course"][-bars:]), _shares(lately["shares"]))
    return Group(_title(now["features_app"], bars * WINDOW_S), table, *_kills(now["features_app"]))


def _title(app: Mapping[str, Any] | None, seconds: float) -> Text:
    state = ("nobody writes them", "dim") if app is None else (app["state"], _STYLES[app["state"]])
    writer = ("", "") if app is None else ("features app ", "")
    return Text.assemble(("Fast features", "bold"), "   ", writer, state, (f"   last {seconds:.0f} s", "dim"))


def told_of(outage: Mapping[str, Any]) -> str:
    """What a kill did to one set, in a line."""
    before = "no predictions" if outage["fresh_before"] is None else f"{outage['fresh_before']:.0%} fresh"
    if outage["flagged_after_s"] is None:
        return f"{before} before, not flagged"
    again = outage["fresh_again_after_s"]
    later = "" if outage["fresh_after"] is None else f" ({outage['fresh_after']:.0%})"
    ended = "not fresh again yet" if again is None else f"fresh again after {again} s{later}"
    return f"{before} before, flagged after {outage['flagged_after_s']} s, {ended}"


def used(shares: Mapping[str, float]) -> str:
    """What came of a set in a whole run, in a line."""
    quiet = f"; nothing had landed for {shares[QUIET]:.1%} of all" if QUIET in shares else ""
    return ", ".join(f"{share:.1%} {fate}" for fate, share in _of_possible(shares)) + quiet


def _shares(shares: Mapping[str, float]) -> Text:
    told = [Text(f"{share:4.0%} {fate}", "green" if fate == FRESH else "red") for fate, share in _of_possible(shares)]
    return Text("  ").join(told[:2]) if told else Text("–", "dim")


def _of_possible(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    """Of the predictions that could use a fresh value, how many did, and why not the others, most frequent first."""
    possible = sum(share for fate, share in shares.items() if fate != QUIET)
    first = sorted(shares, key=lambda fate: fate != FRESH)
    return [(fate, shares[fate] / possible) for fate in first if fate != QUIET]


def _course(shares: Sequence[float | None]) -> Text:
    """Shares as a line of bars, the latest last."""
    bars = Text()
    for share in shares:
        if share is None:
            bars.append("·", "dim")
        else:
            bars.append(_LEVELS[round(share * (len(_LEVELS) - 1))], "green" if share >= 0.5 else "red")
    return bars


def _kills(app: Mapping[str, Any] | None) -> list[Text]:
    """The latest kill of the app."""
    if app is None or not app["kills"]:
        return []
    kill = app["kills"][-1]
    lines = [f"  {name} {told_of(outage)}" for name, outage in kill["sets"].items()]
    return [Text("\n".join([f"features app killed at {kill['at_s']:.0f} s:", *lines]), "cyan")]
