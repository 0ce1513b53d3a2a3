"""Replays with features as they were: ``--features recorded``."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamml as sm
from streamml.adapters.kafka.tail import read_topic
from streamml.compose.locate import Located
from streamml.engine.identity import Provenance, read_header
from streamml.errors import ConfigError
from streamml.features import FeatureWriter
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.replay.plan import Wanted, gathered, planned
from streamml.ops.replay.replay import Replay
from streamml.ops.replay.run import Manner, begin, carry_out, score
from streamml.ops.replay.span import Asked
from streamml.ops.run import StopSignal
from tests.conformance.onnx_files import graph, node, store, value
from tests.integration.scoring import NOW, Job, model, payment

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

    def plan(self, end: int = 100, start: int = 0, *, features: str | None = "recorded") -> Replay:
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
    """F5.3: within the tolerance of floats, as the batches are others; with features as they are now nothing would agree."""
    job = job_of(kafka, redis_server, tmp_path)
    live = job.scores(f"{job.name}.out")
    job.batch_rows = 7

    done, again = job.replay()

    assert (done.state, done.counts["predictions"], done.counts["dead_letters"]) == ("done", 200, 0)
    assert again.keys() == live.keys()
    for id, (score_then, made) in live.items():
        assert again[id][0] == pytest.approx(score_then, rel=1e-4, abs=1e-4)
        assert again[id][1] == made._replace(revision=done.number)
    assert len({made.flags for _, made in live.values()}) == 4


def test_batches_of_the_same_shape_give_the_same_bits(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    job = job_of(kafka, redis_server, tmp_path, batch_rows=1)
    live = job.scores(f"{job.name}.out")

    again = job.replay()[1]

    assert {id: value for id, (value, _) in again.items()} == {id: value for id, (value, _) in live.items()}


class StreamingJob(NetworkJob):
    """The small job with a streaming set beside the loaded one."""

    @property
    def recent(self) -> sm.FeatureSet:
        columns = {"amount": sm.f4(default=-5000.0)}
        return sm.FeatureSet(
            f"{self.name}-recent", key="account", columns=columns, ttl="3h", kind="streaming", max_default_ratio=1.0
        )

    @property
    def topology(self) -> sm.Topology:
        mean, recent = f"{self.name}.mean", f"{self.name}-recent.amount"
        joined = sm.Transform(
            lambda columns: {"x": np.stack([columns["amount"] + columns[recent], columns[mean]], axis=1).astype("f4")},
            inputs=("amount", mean, recent),
            outputs={"x": "f4[2]"},
            name="to_matrix",
        )
        steps = (sm.FeatureLookup(self.recent, self.accounts), joined, sm.Onnx("adder", outputs={"score": "score"}))
        return replace(super().topology, steps=steps)

    def write(self, amount: float, at: datetime) -> None:
        with FeatureWriter(self.recent, url=self.redis_url) as writer:
            writer.write({"account": ["a1"], "event_time": [at], "amount": [amount]})


def test_streaming_sets_are_as_they_were_and_loaded_ones_as_they_are_now(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """F5.6: what Redis has of a streaming set by now is from the events' future."""
    model(tmp_path)
    job = StreamingJob(kafka.bootstrap_servers, redis_server.url, tmp_path)
    job.create()
    job.features({"a1": 1.0})
    job.write(100.0, NOW - timedelta(hours=1))
    job.produce([payment(number) for number in range(40)])
    job.run()
    live = job.scores(f"{job.name}.out")
    job.features({"a1": 3.0})
    job.write(900.0, NOW + timedelta(hours=1))

    replay, again = job.replay(end=20, features=None)
    assert replay.features == f"{job.name}-recent=recorded"
    assert {id: score - live[id][0] for id, (score, _) in again.items()} == dict.fromkeys(live, pytest.approx(2.0))
    assert all(f"{job.name}-recent@" in made.flags and "future" not in made.flags for _, made in again.values())
    _, now = job.replay(end=20, features="live")
    assert {id: score - live[id][0] for id, (score, _) in now.items()} == dict.fromkeys(live, pytest.approx(-5098.0))


def test_what_was_not_recorded_is_told_before_the_start(
    kafka: EmbeddedKafka, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """F5.3: a log that began later, one that has not got so far, one that there is not; a dead letter is no hole."""
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
