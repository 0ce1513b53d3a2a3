"""Conditions on a comparison, as ``changed > 2%``: what makes a candidate fail."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from streamml.errors import ConfigError
from streamml.ops.replay.comparison import Comparison

WHAT: Final = ("changed", "missing", "extra", "dead_lettered", "flips")
_FORM: Final = re.compile(r"\s*(\w+)\s*>\s*([0-9]+(?:\.[0-9]+)?)\s*(%?)\s*")
_EXAMPLE: Final = f"write one as 'changed > 2%' or 'dead_lettered > 0', of {', '.join(WHAT)}"


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit on a number of rows, or on their share.

    Args:
        what: one of `WHAT`.
        limit: rows, or percent of all rows.
        share: whether ``limit`` is a percentage.
    """

    what: str
    limit: float
    share: bool

    def __str__(self) -> str:
        return f"{self.what} > {self.limit:g}{'%' if self.share else ''}"

    def exceeded(self, found: Comparison) -> str | None:
        """In words, by how much; ``None``: it holds. The share of no rows is 0 %."""
        rows = found.counts.rows
        count = found.flipped if self.what == "flips" else getattr(found.counts, self.what)
        shown = f"{count:,} of {rows:,} rows"
        if not self.share:
            return f"{self}: there are {shown}" if count > self.limit else None
        # In whole numbers on the left, so that 2 of 100 are not more than 2 %.
        return f"{self}: there are {shown}, {100 * count / rows:.2f} %" if count * 100 > self.limit * rows else None


def parse_gates(texts: tuple[str, ...], *, thresholds: bool) -> tuple[Gate, ...]:
    """Read conditions; several may stand in one text, separated by commas.

    Args:
        thresholds: whether there is one that rows could cross.

    Raises:
        ConfigError: with every problem.
    """
    problems: list[str] = []
    gates: list[Gate] = []
    for text in (part for whole in texts for part in whole.split(",")):
        read = _FORM.fullmatch(text)
        if read is None:
            problems.append(f"{text.strip()!r} is no condition; {_EXAMPLE}.")
            continue
        what, limit, percent = read.groups()
        if what not in WHAT:
            problems.append(f"There is nothing called {what!r} to have a limit in {text.strip()!r}; {_EXAMPLE}.")
        elif percent and float(limit) > 100:
            problems.append(f"{text.strip()!r} can never be: a share is at most 100 %.")
        elif what == "flips" and not thresholds:
            problems.append(f"{text.strip()!r} needs a threshold that rows can cross: add --threshold FIELD=NUMBER.")
        else:
            gates.append(Gate(what, float(limit), bool(percent)))
    if problems:
        raise ConfigError(problems)
    return tuple(gates)


def exceeded(gates: tuple[Gate, ...], found: Comparison) -> list[str]:
    """What does not hold, each in words."""
    return [told for gate in gates if (told := gate.exceeded(found)) is not None]
