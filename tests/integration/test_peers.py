"""The comparison with other frameworks, on real servers and without the frameworks."""

from __future__ import annotations

import sys
import uuid
from dataclasses import dataclass

import numpy as np
import onnxruntime
import pytest

from loadtests.baseline.commands import COMMANDS
from loadtests.baseline.load import events, feature_columns, load_features, produce_all
from loadtests.baseline.timing import Backlog, Command, Servers, drain, make_topic
from loadtests.peers.compare import Options, latency
from loadtests.peers.job import FIELDS, MODEL, Scorer, decode
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.redis import EmbeddedRedis

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Program:
    """A contender that is a few lines of Python."""

    code: str

    def command(self, servers: Servers, topic_in: str, topic_out: str, count: int) -> list[str]:
        """How it is started."""
        return [sys.executable, "-c", self.code]


def drained(kafka: EmbeddedKafka, command: Command, limit_s: float) -> float:
    """Events per second of 500."""
    servers = Servers(kafka.bootstrap_servers, "")
    backlog = Backlog(make_topic(servers, f"backlog-{uuid.uuid4().hex}"), 500)
    produce_all(servers.brokers, backlog.topic, backlog.events)
    return drain(servers, backlog, command, limit_s).events_per_s


def test_what_drains_has_a_speed(kafka: EmbeddedKafka) -> None:
    assert drained(kafka, COMMANDS["bare"], 60.0) > 0


def test_who_ends_with_an_error_is_not_waited_for(kafka: EmbeddedKafka) -> None:
    with pytest.raises(RuntimeError, match="exit code 3 after 0 of 500 events"):
        drained(kafka, Program("raise SystemExit(3)").command, 60.0)


def test_who_does_nothing_is_given_up(kafka: EmbeddedKafka) -> None:
    with pytest.raises(TimeoutError, match="0 of 500 events in 1 s"):
        drained(kafka, Program("import time; time.sleep(60)").command, 1.0)


def test_every_answer_has_an_age(kafka: EmbeddedKafka) -> None:
    found = latency(Servers(kafka.bootstrap_servers, ""), COMMANDS["bare"], Options(rate=100, seconds=3.0))
    assert 0 < found.p50 <= found.p99
    assert 0 < found.answered <= 1


def test_peers_score_with_the_features_of_the_account(redis_server: EmbeddedRedis) -> None:
    load_features(redis_server.url)
    stored = feature_columns()
    values = [value for _, value in events(300)]
    found = [decode(value) for value in values]
    fields = [[getattr(event, name) for event in found] for name in FIELDS]
    features = [column[[event.account for event in found]] for column in stored.values()]
    x = np.array([*fields, *features], np.float32).T
    right = onnxruntime.InferenceSession(str(MODEL)).run(["score"], {"x": np.ascontiguousarray(x)})[0][:, 0]
    scorer = Scorer(redis_server.url)
    together = scorer.predictions(values)
    assert [one.event_id for one in together] == [event.event_id for event in found]
    assert [one.score for one in together] == pytest.approx(right.tolist(), rel=1e-5)
    alone = [scorer.prediction(event).score for event in found[:20]]
    assert alone == pytest.approx(right.tolist()[:20], rel=1e-5)
