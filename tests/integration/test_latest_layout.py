"""Stored predictions byte by byte: the readers of docs/examples in Java and Go, and the rule of the script in Redis."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.latest import SCRIPT, latest_keys, packed, rank, unpacked
from streamml.ops.embedded.java import java
from streamml.ops.embedded.redis import EmbeddedRedis

pytestmark = pytest.mark.integration
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NAME, KEY = "arrivals", "ü 1545"
EDGES = (0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**33 + 1)


def predictions() -> list[bytes]:
    """Any values, ids, flags and revisions, tombstones and empty values among them."""
    chosen = random.Random(7)
    made = []
    for number in range(300):
        value = None if number % 7 == 3 else chosen.randbytes(chosen.choice([0, 1, 40, 500]))
        id = f"t/ö/{chosen.choice([0, 5, 2**31 - 1])}/{chosen.choice([0, 2**63 - 1, 2**32])}{'#12' if number % 3 else ''}"
        model = "" if number % 5 == 0 else "m@1"
        mark = f"1;{id};{model};{chosen.choice([0, 1, 2**32 - 1])};a:missing;b,ü".encode()
        made.append(packed(value, mark, chosen.choice([0, -5, 1_700_000_000_123, 2**52])))
    return made


def as_documented(stored: bytes) -> list[str]:
    """The table of docs/reference/redis-latest.md, read by hand."""
    assert stored[:4] == b"SMP1"
    (revision,) = struct.unpack_from("<I", stored, 4)
    (time_us,) = struct.unpack_from("<q", stored, 8)
    (length,) = struct.unpack_from("<I", stored, 32)
    (tombstone,) = struct.unpack_from("<I", stored, 36)
    version, id, model, told, flags = stored[40 : 40 + length].decode().split(";", 4)
    offset, partition, child = struct.unpack_from("<qii", stored, 16)
    assert (version, told) == ("1", str(revision))
    assert id.endswith(f"/{partition}/{offset}" + ("" if child == -1 else f"#{child}"))
    value = "none" if tombstone else stored[40 + length :].hex()
    return [id.encode().hex(), model.encode().hex(), str(revision), flags.encode().hex(), str(time_us), value]


def assert_reads_as_documented(program: Sequence[str]) -> None:
    made = predictions()
    broken = [made[0][:39], b"SMP2" + made[0][4:], made[0][:32] + b"\xff\xff\xff\xff" + made[0][36:], b""]
    lines = "".join(f"{one.hex()}\n" for one in [*made, *broken])
    done = subprocess.run([*program, NAME, KEY], input=lines, capture_output=True, text=True, timeout=100, check=True)
    key, *rest = done.stdout.splitlines()
    assert bytes.fromhex(key) == latest_keys(NAME, [KEY.encode()])[0] == f"streamml.latest:{NAME}:7:{KEY}".encode()
    assert [line.split("\t") for line in rest[:-4]] == [as_documented(one) for one in made]
    assert rest[-4:] == ["refused"] * 4


def test_python_reads_what_is_documented() -> None:
    for stored in predictions():
        found, told = unpacked(stored), as_documented(stored)
        value = "none" if found.value is None else found.value.hex()
        texts = [one.encode().hex() for one in (found.id, found.model, found.flags)]
        assert [*texts, str(found.revision), value] == [told[0], told[1], told[3], told[2], told[5]]
        assert found.event_time_ms == int(told[4]) // 1000


@pytest.mark.skipif(shutil.which("javac") is None, reason="There is no javac on the PATH to compile the example with.")
def test_java_reads_what_a_worker_wrote(tmp_path: Path) -> None:
    source = str(EXAMPLES / "java" / "LatestPrediction.java")
    compiling = ["javac", "--release", "11", "-Xlint:all", "-Werror", "-d", str(tmp_path), source]
    subprocess.run(compiling, check=True, timeout=100)
    assert_reads_as_documented([java(), "-cp", str(tmp_path), "LatestPrediction"])


@pytest.mark.skipif(
    shutil.which("go") is None and not Path("/usr/local/go/bin/go").exists(), reason="There is no Go here."
)
def test_go_reads_what_a_worker_wrote(tmp_path: Path) -> None:
    go, program = shutil.which("go") or "/usr/local/go/bin/go", str(tmp_path / "latest")
    subprocess.run([go, "build", "-o", program, str(EXAMPLES / "go" / "latest.go")], check=True, timeout=100)
    assert_reads_as_documented([program])


FIELDS: Final[tuple[Sequence[Any], ...]] = (
    [-5, 0, *EDGES],
    EDGES,
    [0, 1, 2**31 - 1],
    ["", "#0", "#1"],
    [0, 1, 2**31, 2**32 - 1],
)
"""What is tried of time, offset, partition, child and revision."""


def any_pair(chosen: random.Random) -> tuple[bytes, bytes]:
    """Two predictions that share some of their first fields, none or all."""
    one, other = ([chosen.choice(field) for field in FIELDS] for _ in range(2))
    alike = chosen.randint(0, len(FIELDS))
    return stored(*one), stored(*one[:alike], *other[alike:])


def stored(time: int, offset: int, partition: int, child: str, revision: int) -> bytes:
    return packed(b"", f"1;t/{partition}/{offset}{child};;{revision};".encode(), time)


def test_d3_redis_keeps_what_python_says_is_newer(redis_server: EmbeddedRedis) -> None:
    """D3.12: whichever of two is written first."""
    chosen = random.Random(11)
    pairs = [any_pair(chosen) for _ in range(4000)]
    keys = latest_keys(uuid.uuid4().hex, [str(number).encode() for number in range(len(pairs))])
    session = Server(redis_server.url).connect()
    try:
        script = session.call("SCRIPT", "LOAD", SCRIPT)
        for written in zip(*pairs, strict=True):
            session.call("EVALSHA", script, len(keys), *keys, 60_000, *written)
        kept = session.call("MGET", *keys)
    finally:
        session.close()
    assert list(map(rank, kept)) == [max(rank(one), rank(other)) for one, other in pairs]
