"""The readers and writers of docs/examples in Java and Go, on values that Python wrote."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamml.adapters.redis.layout import Layout, schema_lines
from streamml.batch.column import boolean, f4, f8, i4, i8, timestamp
from streamml.ops.embedded.java import java
from streamml.ports.feature_store import FeatureSchema

pytestmark = pytest.mark.integration
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
COLUMNS = (
    ("b", boolean),
    ("d", f8),
    ("i", i4),
    ("v", f4[3]),
    ("flag", boolean),
    ("long", i8),
    ("at", timestamp),
    ("m", f8[2, 2]),
)
ROWS = 400


def layout_of(kind: Any) -> Layout:
    return Layout.of(FeatureSchema("set", COLUMNS, kind))


def values(layout: Layout) -> tuple[list[bytes], np.ndarray[Any, Any]]:
    """Any bits that are numbers, written by Python."""
    random = np.random.default_rng(11)
    columns: dict[str, Any] = {}
    for name, declared in COLUMNS:
        shape = (ROWS, *declared.shape)
        if declared.kind == "bool":
            columns[name] = random.integers(0, 2, shape).astype(bool)
            continue
        bits = random.integers(0, 256, (*shape, declared.dtype.itemsize), np.uint8)
        bits[:5] = np.array([0, 255, 128, 127, 1], np.uint8).reshape(5, *[1] * (bits.ndim - 1))
        column = bits.view(declared.dtype).reshape(shape)
        columns[name] = (
            np.where(np.isfinite(column), column, declared.dtype.type(0.5)) if declared.kind[0] == "f" else column
        )
    event_time = random.integers(-(2**63), 2**63, ROWS, np.int64)
    made = layout.encode(columns, event_time, 1_700_000_000_000_000, 0xFEDCBA98)
    return made, np.frombuffer(b"".join(made), layout.dtype)


def told(program: list[str], layout: Layout, given: Iterable[bytes]) -> list[list[str]]:
    command = [*program, layout.schema.kind, *schema_lines(layout.schema)]
    lines = "".join(f"{one.hex()}\n" for one in given)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=100, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def assert_reads_as_python(lines: list[list[str]], rows: np.ndarray[Any, Any], layout: Layout) -> None:
    assert len(lines) == len(rows)
    writer = 0xFEDCBA98 if layout.schema.kind == "streaming" else 0
    for line, row in zip(lines, rows, strict=True):
        words = line[0].split(" ")
        assert words[:3] == [str(row["event_time"]), str(row["write_time"]), str(writer)]
        read = iter(words[3:])
        for (_, declared), (_, place) in zip(COLUMNS, layout.places, strict=True):
            for item in np.atleast_1d(row[place]).ravel():
                word = next(read)
                if declared.kind == "bool":
                    assert word == str(bool(item)).lower()
                elif declared.kind[0] == "f":
                    assert declared.dtype.type(word) == item
                else:
                    assert int(word) == int(item.astype(np.int64))
        assert not list(read)


@pytest.mark.skipif(shutil.which("javac") is None, reason="There is no javac on the PATH to compile the example with.")
def test_java_reads_what_python_wrote_and_writes_the_same_bytes(tmp_path: Path) -> None:
    source = str(EXAMPLES / "java" / "Features.java")
    subprocess.run(
        ["javac", "--release", "11", "-Xlint:all", "-Werror", "-d", str(tmp_path), source], check=True, timeout=100
    )
    for kind in ("loaded", "streaming"):
        layout = layout_of(kind)
        made, rows = values(layout)
        lines = told([java(), "-cp", str(tmp_path), "Features"], layout, [*made, made[0][:-1], b"SML9" + made[0][4:]])
        assert_reads_as_python(lines[:-2], rows, layout)
        assert [bytes.fromhex(line[1]) for line in lines[:-2]] == made
        assert lines[-2:] == [["none"], ["none"]]


@pytest.mark.skipif(
    shutil.which("go") is None and not Path("/usr/local/go/bin/go").exists(), reason="There is no Go here."
)
def test_go_reads_what_python_wrote(tmp_path: Path) -> None:
    go = shutil.which("go") or "/usr/local/go/bin/go"
    program = str(tmp_path / "features")
    source = str(EXAMPLES / "go" / "features.go")
    subprocess.run([go, "build", "-o", program, source], check=True, timeout=100)
    for kind in ("loaded", "streaming"):
        layout = layout_of(kind)
        made, rows = values(layout)
        lines = told([program], layout, [*made, made[0][:-1], b"SML9" + made[0][4:]])
        assert_reads_as_python(lines[:-2], rows, layout)
        assert lines[-2:] == [["none"], ["none"]]
