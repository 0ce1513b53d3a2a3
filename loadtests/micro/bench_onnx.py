"""What scoring costs: microseconds per row of a small network, and CPU burnt while there is nothing to score.

    python loadtests/micro/bench_onnx.py [--json]

The network is 22 → 64 → 64 → 1, float32. "Adapter" is `OnnxModel.run` with all its checks, "bare" the session under it.
CPU use is of the whole process, over one core: "idle" with nothing to score, "sparse" with a batch of 256 rows each
20 ms, which is what a worker near the head of its topic does.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from streamml.adapters.models.model_toml import write_toml
from streamml.adapters.models.onnx import OnnxModel
from streamml.adapters.models.onnx_session import OnnxSettings, open_session, signature_of
from streamml.adapters.models.repository import ModelFiles, find

WIDTHS = (22, 64, 64, 1)
SIZES = (1, 32, 256, 2048)
SETTINGS = (OnnxSettings(), OnnxSettings(threads=2), OnnxSettings(threads=2, spinning=True))
SPARSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of one setting; those by batch size are medians."""

    threads: int
    spinning: bool
    adapter_us_per_row: dict[int, float]
    bare_us_per_row: dict[int, float]
    adapter_p99_us_per_batch: dict[int, float]
    idle_cpu_share: float
    sparse_cpu_share: float
    sparse_us_per_batch: float


def network() -> onnx.ModelProto:
    """A multilayer perceptron with random weights."""
    rng = np.random.default_rng(0)
    nodes, constants, last = [], {}, "x"
    for layer, (width_in, width_out) in enumerate(pairwise(WIDTHS)):
        constants[f"w{layer}"] = rng.normal(size=(width_in, width_out)).astype(np.float32)
        constants[f"b{layer}"] = np.zeros(width_out, np.float32)
        activation, after = ("Sigmoid", "y") if layer == len(WIDTHS) - 2 else ("Relu", f"h{layer}")
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [f"sum{layer}"]))
        nodes.append(helper.make_node(activation, [f"sum{layer}"], [after]))
        last = after
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTHS[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", WIDTHS[-1]])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def stored(root: Path) -> ModelFiles:
    """The network in a model repository."""
    folder = root / "network" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(network().SerializeToString())
    write_toml(folder, signature_of(folder / "model.onnx"), {}, {"by": Path(__file__).name})
    return find(root, "network")


def timings(run: Callable[[], object], seconds: float = 0.5) -> list[float]:
    """Microseconds of each call, for some time, after a warm-up."""
    for _ in range(20):
        run()
    taken = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        run()
        taken.append((time.perf_counter() - start) * 1e6)
    return taken


def cpu_share(work: Callable[[], object], seconds: float = 2.0) -> float:
    """CPU seconds per second while ``work`` is called each 20 ms."""
    cpu, start = time.process_time(), time.perf_counter()
    while time.perf_counter() - start < seconds:
        work()
        time.sleep(SPARSE_S)
    return (time.process_time() - cpu) / (time.perf_counter() - start)


def measure(files: ModelFiles, settings: OnnxSettings) -> Result:
    """All figures of one setting."""
    model, bare = OnnxModel.load(files, settings), open_session(files.model, settings)
    batches = {
        size: {"x": np.random.default_rng(1).normal(size=(size, WIDTHS[0])).astype(np.float32)} for size in SIZES
    }
    through_adapter = {size: timings(partial(model.run, batch)) for size, batch in batches.items()}
    through_bare = {size: timings(partial(bare.run, ["y"], batch)) for size, batch in batches.items()}
    sparse: list[float] = []

    def one_batch() -> None:
        start = time.perf_counter()
        model.run(batches[256])
        sparse.append((time.perf_counter() - start) * 1e6)

    busy = cpu_share(one_batch)
    return Result(
        threads=settings.threads,
        spinning=settings.spinning,
        adapter_us_per_row={size: round(median(taken) / size, 3) for size, taken in through_adapter.items()},
        bare_us_per_row={size: round(median(taken) / size, 3) for size, taken in through_bare.items()},
        adapter_p99_us_per_batch={
            size: round(float(np.percentile(taken, 99)), 1) for size, taken in through_adapter.items()
        },
        idle_cpu_share=round(cpu_share(lambda: None), 4),
        sparse_cpu_share=round(busy, 4),
        sparse_us_per_batch=round(median(sparse), 1),
    )


def table(results: list[Result]) -> str:
    """The results for people."""
    lines = []
    for result in results:
        lines.append(f"{result.threads} thread(s), spinning {'on' if result.spinning else 'off'}")
        lines += [
            f"  batch {size:>5}: {result.adapter_us_per_row[size]:8.3f} us/row"
            f"  (bare {result.bare_us_per_row[size]:8.3f}; p99 {result.adapter_p99_us_per_batch[size]:8.1f} us/batch)"
            for size in SIZES
        ]
        lines.append(f"  CPU: idle {result.idle_cpu_share:.2%}, a batch each 20 ms {result.sparse_cpu_share:.2%}")
        lines.append(f"  a batch of 256 after 20 ms of rest: {result.sparse_us_per_batch:.1f} us")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = stored(Path(folder))
        results = [measure(files, settings) for settings in SETTINGS]
    if arguments.json:
        print(json.dumps({"cores": os.cpu_count(), "results": [asdict(result) for result in results]}))
    else:
        print(table(results))


if __name__ == "__main__":
    main()
