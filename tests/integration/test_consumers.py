"""The reference consumers of docs/examples in Python and Java, on one topic."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from streamml.ops.embedded.java import class_path, default_cache, java
from streamml.ops.embedded.kafka import EmbeddedKafka
from tests.integration.replayed import Shop
from tests.property.test_corrections import LATEST

pytestmark = pytest.mark.integration
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "java" / "Latest.java"


@pytest.mark.skipif(shutil.which("javac") is None, reason="There is no javac on the PATH to compile the example with.")
def test_d3_consumers_in_java_and_python_keep_the_same(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """D3."""
    shop = Shop(kafka.bootstrap_servers)
    records = [(number, revision) for number in range(30) for revision in (0, 0, 3, 12) if revision == 0 or number % 3]
    chance = random.Random(7)
    chance.shuffle(records)
    for number, revision in records:
        child = number % 2 if number > 20 else None
        key = f"k{number % 7}"
        shop.predict(shop.live_topic, number, revision / 100, time=number // 4, key=key, revision=revision, child=child)
    shop.flush()
    by_id, by_key = LATEST.HighestRevision(), LATEST.LatestPerKey()
    for one in shop.read(shop.live_topic):
        found = LATEST.prediction(one.record.key, one.record.value, one.record.timestamp, one.record.headers)
        by_id.take(found)
        by_key.take(found)
    assert len(by_id.kept) == 30
    assert len(by_key.kept) == 7
    kept = {("id", id): one for id, one in by_id.kept.items()} | {
        ("key", key.decode()): one for key, one in by_key.kept.items()
    }
    jars = class_path(default_cache(), lambda text: None)
    # Any compiler will do: what it makes runs on the oldest Java that the client runs on.
    compiling = ["javac", "--release", "11", "-Xlint:all", "-Werror", "-cp", jars, "-d", str(tmp_path), str(EXAMPLE)]
    subprocess.run(compiling, check=True, timeout=100)
    running = [java(), "-cp", f"{tmp_path}:{jars}", "Latest", shop.brokers, shop.live_topic]
    told = subprocess.run(running, check=True, timeout=100, capture_output=True, text=True).stdout
    lines = [line.split("\t") for line in told.splitlines() if line.startswith(("id\t", "key\t"))]
    assert {(what, name): (int(revision), value.encode()) for what, name, revision, value in lines} == {
        name: (one.revision, one.value) for name, one in kept.items()
    }
