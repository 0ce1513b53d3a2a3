"""Networks on a device, driven by the real engine and worker without a broker: ``make bench-gpu``. See docs/guide/speed.md."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from loadtests.baseline.machine import conditions

RESULTS: Final = Path(__file__).parents[1] / "results"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.gpu", description=__doc__.partition(":")[0])
    parser.add_argument("--small", action="store_true", help="networks that two CPU cores do in about two minutes")
    parser.add_argument("--device", help="cuda:0, cpu; default: a GPU where there is one")
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long each figure is measured")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile, too (on a GPU it always is)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the result")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    found = measure(arguments, lambda text: print(f"{text} …", file=sys.stderr))
    arguments.out.mkdir(parents=True, exist_ok=True)
    kind = found["conditions"]["device"].lower().replace(" ", "-")
    (arguments.out / f"gpu-{kind}{'-small' if arguments.small else ''}.json").write_text(
        json.dumps(found, indent=1) + "\n"
    )
    if arguments.json:
        print(json.dumps(found))
    else:
        show(found)


def measure(arguments: argparse.Namespace, tell: Any) -> dict[str, Any]:
    """Everything that this machine can, and a sentence for what it cannot."""
    from loadtests.gpu import with_onnx

    said = {name: value for name, value in conditions(0, 1).items() if name not in ("kafka", "events", "rounds")}
    found: dict[str, Any] = {"conditions": {**said, "device": "cpu", "small": arguments.small}}
    try:
        import torch
    except ImportError:
        found["torch"] = "PyTorch is not installed, so that only ONNX Runtime was measured: make bench-gpu brings it."
        tell(found["torch"])
    else:
        from loadtests.gpu import with_torch

        device = arguments.device or ("cuda:0" if torch.cuda.is_available() else "cpu")
        on_gpu = device != "cpu"
        if on_gpu:
            found["conditions"]["device"] = torch.cuda.get_device_name(device)
        found["conditions"]["packages"]["torch"] = torch.__version__
        options = with_torch.Options(device, arguments.small, arguments.seconds, arguments.compile or on_gpu)
        found["torch"] = dict(with_torch.measured(options, tell))
    found["onnxruntime"] = with_onnx.measured(arguments.seconds, tell)
    return found


def show(found: dict[str, Any]) -> None:
    """The figures as tables."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    columns = ("raw_rows_per_s", "rows_per_s", "of_raw", "in_model", "ms_p50", "ms_p99")
    groups = {"ONNX Runtime": found["onnxruntime"]}
    if isinstance(found["torch"], dict):
        groups = {name: network["variants"] for name, network in found["torch"].items()} | groups
    for title, rows in groups.items():
        table = Table("", *columns, title=f"{title} on {found['conditions']['device']}")
        for name, row in rows.items():
            table.add_row(name, *("–" if "failed" in row else f"{row[column]:,}" for column in columns))
        console.print(table)
        for name, row in rows.items():
            if "failed" in row:
                console.print(f"{name}: {row['failed']}", markup=False)


if __name__ == "__main__":
    main()
