"""Is a new result of the benchmark worse than the one that is committed? ``python -m loadtests.gate NEW [COMMITTED]``.

Ratios are compared, each of two figures of one run: absolute times are those of a machine and its day. Exit code 1 says that
one is worse by more than the tolerance, and which.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

COMMITTED: Final = Path(__file__).parent / "results" / "bench.json"
TOLERANCE: Final = 0.15
_TAIL_TOLERANCE: Final = 3.0
"""Times the tolerance for p99, which one hiccup of a machine decides."""


def ratios(result: Mapping[str, Any]) -> dict[str, float]:
    """Every ratio in a result of ``streamml bench`` by what it is called; larger is better."""
    found: dict[str, float] = {}
    for name, told in (
        ("ratio", "events/s, of the bare loop's"),
        ("hand_written_ratio", "events/s, of the hand-written loop's"),
        ("exactly_once_ratio", "events/s exactly once, of at least once"),
    ):
        if name in result:
            found[told] = float(result[name])
    cpu = result.get("cpu_s_per_million", {})
    for other in ("bare", "hand_written"):
        if cpu.get(other) and cpu.get("worker"):
            found[f"events per processor second, of the {other.replace('_', '-')} loop's"] = cpu[other] / cpu["worker"]
    for rate, by in result.get("latency_ms", {}).items():
        for share in ("p50", "p99"):
            if by.get("worker", {}).get(share) and by.get("bare", {}).get(share):
                found[f"quickness at {int(rate):,}/s ({share}), of the bare loop's"] = (
                    by["bare"][share] / by["worker"][share]
                )
    return found


def worse(new: Mapping[str, Any], committed: Mapping[str, Any], tolerance: float = TOLERANCE) -> Iterator[str]:
    """A sentence for each ratio that is worse by more than ``tolerance`` (0.15: 15 %), or that is not there any more."""
    ours = ratios(new)
    for name, before in ratios(committed).items():
        if name not in ours:
            yield f"The new result has no figure for {name}; run the whole benchmark."
            continue
        allowed = tolerance * (_TAIL_TOLERANCE if "p99" in name else 1.0)
        if ours[name] < before / (1.0 + allowed):
            yield f"{name[0].upper()}{name[1:]}: {ours[name]:.3f}, and {before:.3f} before; more than {allowed:.0%} worse."


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.gate", description=__doc__)
    parser.add_argument("new", type=Path, help="result of `streamml bench --out`")
    parser.add_argument("committed", type=Path, nargs="?", default=COMMITTED)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="0.15: a ratio may be 15 %% worse")
    parser.add_argument("--json", action="store_true", help="print the ratios and the sentences as JSON")
    arguments = parser.parse_args()
    if not arguments.tolerance >= 0:
        parser.error(f"--tolerance is {arguments.tolerance}; it has to be 0 or above")
    new, committed = (_read(parser, path) for path in (arguments.new, arguments.committed))
    sentences = list(worse(new, committed, arguments.tolerance))
    if arguments.json:
        print(json.dumps({"ratios": ratios(new), "committed": ratios(committed), "worse": sentences}))
    else:
        print("\n".join(sentences or [f"None of {len(ratios(committed))} ratios is worse."]))
    return 1 if sentences else 0


def _read(parser: argparse.ArgumentParser, path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        parser.error(f"{path} cannot be read as a result ({error}); `streamml bench --out FILE` writes one")
    if not isinstance(found, dict) or not ratios(found):
        parser.error(f"{path} holds no ratio; `streamml bench --out FILE` writes a result")
    return found


if __name__ == "__main__":
    sys.exit(main())
