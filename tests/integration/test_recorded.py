"""Replays with features as they were: ``--features recorded``."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamml as sm
from streamml.adapters.kafka.tail import read_topic
from streamml.compose.locate import Located
from streamml.engine.identity import Provenance, read_header
from streamml.errors import ConfigError
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.replay.plan import Wanted, gathered, planned
from streamml.ops.replay.replay import Replay
from streamml.ops.replay.run import Manner, begin, carry_out, score
from streamml.ops.replay.span import Asked
from streamml.ops.run import StopSignal
from tests.conformance.onnx_files import graph, node, store, value
from tests.integration.scoring import Job, payment

pytestmark = pytest.mark.integration
WIDTH = 64
WAYS = np.random.default_rng(1).normal(size=(2, WIDTH)).astype("f4")


def spread(amount: Any, mean: Any) -> dict[str, Any]:
    """Both numbers as many that are neither round nor alike."""
    return {"x": np.sin(amount[:, None] * WAYS[0] + mean[:, None] * WAYS[1]).astype("f4")}


def network(folder: Path) -> None:
    """A model whose last bits depend on how many rows it gets at once."""
    random = np.random.default_rng(2)
    weights = {name: random.normal(size=shape).astype("f4") for name, shape in (("w", (WIDTH, 256)), ("v", (256, 1)))}
    layers = [
        node("MatMul", ["x", "w"], ["hidden"]),
        node("Tanh", ["hidden"], ["bent"]),
        node("MatMul", ["bent", "v"], ["score"]),
    ]
    made = graph(layers, [value("x", "float32", ["rows", WIDTH])], [value("score", "float32", ["rows", 1])], weights)
    store(folder / "models", made, "network")


@dataclass
class NetworkJob(Job):
    """The small job with a network for a model, and with a feature log."""

    feature_log: bool = True
    batch_rows: int = 1000

    @property
    def topology(self) -> sm.Topology:
        whole, mean = super().topology, f"{self.name}.mean"
        steps = [
            whole.steps[0],
            sm.Transform(
                lambda columns: spread(columns["amount"], columns[mean]),
                inputs=("amount", mean),
                outputs={"x": f"f4[{WIDTH}]"},
                name="spread",
            ),
            sm.Onnx("network", outputs={"score": "score"}, batching=sm.Batching(max_batch_size=self.batch_rows)),
        ]
        return replace(whole, steps=tuple(steps))

    @property
    def located(self) -> Located[sm.Topology]:
        if not (self.folder / "models").exists():
            network(self.folder)
        return Located(self.topology, self.folder)

    def plan(self, end: int = 100, start: int = 0, *, features: str = "recorded") -> Replay:
        with planned(self.located, self.settings, Wanted(Asked(str(start), str(end)), features=features)) as (plan, _):
            return plan.draft

    def replay(self, **asked: Any) -> tuple[Replay, dict[str, tuple[float, Provenance]]]:
        """A whole replay of both partitions; it, and what it wrote by id."""
        replay, stop = begin(self.topology, self.settings, self.plan(**asked)), StopSignal()
        with gathered(self.topology, self.located.repository, self.settings, replay.models, replay.features) as parts:
            done, _ = carry_out(
                self.topology,
                self.settings,
                replay,
                lambda: score(self.topology, parts, self.settings, replay, Manner(patience_s=20), stop),
                stop,
            )
        return done, self.scores(done.into)

    def scores(self, topic: str) -> dict[str, tuple[float, Provenance]]:
        found = {}
        for one in read_topic({"bootstrap.servers": self.brokers}, topic):
            document = json.loads(one.record.value or b"")
            found[document["id"]] = document["score"], read_header(dict(one.record.headers)["streamml"] or b"")
        return found


def job_of(kafka: EmbeddedKafka, redis: EmbeddedRedis, folder: Path, **changes: Any) -> NetworkJob:
    """Two hundred payments, scored live while the features changed."""
    made = NetworkJob(kafka.bootstrap_servers, redis.url, folder, **changes)
    made.create()
    for part, mean in enumerate((0.5, 0.7)):
        made.features({"a1": mean})
        accounts = ("a1", "unknown", "a1")
        made.produce([payment(number, accounts[number % 3]) for number in range(100 * part, 100 * part + 100)])
        made.run()
    made.features({"a1": 99.0})
    return made


def test_it_scores_with_what_was_looked_up_then(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """Within the tolerance of floats, as the batches are others; with features as they are now nothing agrees."""
    job = job_of(kafka, redis_server, tmp_path)
    live = job.scores(f"{job.name}.out")
    job.batch_rows = 7

    done, again = job.replay()
    now = job.replay(features="live")[1]

    assert (done.state, done.counts["predictions"], done.counts["dead_letters"]) == ("done", 200, 0)
    assert again.keys() == live.keys()
    for id, (score_then, made) in live.items():
        assert again[id][0] == pytest.approx(score_then, rel=1e-4, abs=1e-4)
        assert again[id][1] == made._replace(revision=done.number)
    assert len({made.flags for _, made in live.values()}) == 4
    assert np.mean([abs(now[id][0] - value) > 1e-3 for id, (value, _) in live.items()]) > 0.5


def test_batches_of_the_same_shape_give_the_same_bits(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    job = job_of(kafka, redis_server, tmp_path, batch_rows=1)
    live = job.scores(f"{job.name}.out")

    again = job.replay()[1]

    assert {id: value for id, (value, _) in again.items()} == {id: value for id, (value, _) in live.items()}


def test_what_was_not_recorded_is_told_before_the_start(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """A log that began later, one that has not got so far, one that there is not; a dead letter is no hole."""
    job = NetworkJob(kafka.bootstrap_servers, redis_server.url, tmp_path, feature_log=False)
    job.create()
    job.features({"a1": 0.5})
    job.produce([payment(number) for number in range(40)])
    job.run()
    with pytest.raises(ConfigError, match="keeps no features as they were"):
        job.plan(20)

    job.feature_log = True
    with pytest.raises(ConfigError, match="There is no feature log"):
        job.plan(20)
    job.create_log()
    job.produce([*(payment(number) for number in range(40, 80)), b"broken", b"broken"])
    job.run()
    with pytest.raises(ConfigError) as raised:
        job.plan(40)
    assert [
        f"{job.name}.in/{number}, offsets 0 to 19: it began later" in raised.value.problems[number] for number in (0, 1)
    ]
    assert len(job.plan(41, 20).spans) == 2

    job.produce([payment(number) for number in range(80, 100)])
    with pytest.raises(ConfigError, match=r"offsets 40 to 50: live workers have not"):
        job.plan(51, 20)

    done, again = job.replay(start=20, end=41)
    assert (len(again), done.counts["dead_letters"]) == (40, 2)
