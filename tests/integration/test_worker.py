"""A whole worker on a real broker: records in, JSON codec, a model, predictions and dead letters out."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pydantic import BaseModel

from streamml.adapters.codecs.json import json_decoder
from streamml.adapters.codecs.json_encode import json_encoder
from streamml.adapters.kafka.sink import KafkaSink
from streamml.adapters.kafka.source import KafkaSource
from streamml.adapters.memory.model import FunctionModel
from streamml.batch.column import Columns
from streamml.clock import SystemClock
from streamml.engine.assignment import SlotNames
from streamml.engine.backpressure import Budget
from streamml.engine.batcher import BatchPolicy
from streamml.engine.dead_letters import DeadLetterLimit
from streamml.engine.engine import Engine, EngineConfig
from streamml.engine.events import Stopped
from streamml.engine.identity import HEADER, read_header
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ports.model import Signature, Tensor
from streamml.runtime.reader import WorkerConfig
from streamml.runtime.worker import Worker
from streamml.schema.contract import Contract
from streamml.stages.codec import Decode, Encode, EncodeConfig
from streamml.stages.model import RunModel
from streamml.stages.stage import Stage
from streamml.topology.steps import Output

pytestmark = pytest.mark.integration

PARTITIONS = 3


class Event(BaseModel):
    id: str
    amount: float


class Prediction(BaseModel):
    id: str
    score: float


def double(inputs: Columns) -> Columns:
    amount = inputs["amount"]
    if (amount == 13.0).any():
        raise ValueError("13 is poison")
    return {"score": amount * 2}


@dataclass
class Job:
    """Topics, a group and workers for one test."""

    servers: str
    name: str = field(default_factory=lambda: f"job-{uuid.uuid4().hex[:8]}")

    def create(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.servers})
        topics = [NewTopic(f"{self.name}.{part}", PARTITIONS, 1) for part in ("in", "out", "dlq")]
        for created in admin.create_topics(topics).values():
            created.result()

    def produce(self, values: list[bytes | None]) -> None:
        producer = Producer({"bootstrap.servers": self.servers})
        for index, value in enumerate(values):
            producer.produce(f"{self.name}.in", value, str(index % 50), partition=index % PARTITIONS)
        assert producer.flush(30) == 0

    def worker(
        self, model: Callable[[Columns], Columns] = double, *, budget_rows: int = 100_000, identity: str | None = None
    ) -> Worker:
        client: dict[str, Any] = {"bootstrap.servers": self.servers}
        names = SlotNames()
        config = EngineConfig(
            stages=(BatchPolicy(500),),
            prediction_topic=f"{self.name}.out",
            dead_letter_topic=f"{self.name}.dlq",
            dead_letter_limit=DeadLetterLimit(0.5, 1000),
            budget=Budget(budget_rows, 50_000_000),
        )
        tensor = Tensor("float64", ())
        scorer = FunctionModel("double", "1", Signature({"amount": tensor}, {"score": tensor}), model)
        decoder = json_decoder(Contract.of(Event), columns=frozenset({"id", "amount"}))
        encode = Encode(json_encoder(Contract.of(Prediction)), names.prefixes, EncodeConfig("id", model="double@1"))
        stage = Stage(
            [Decode(decoder, "drop"), RunModel(scorer, {"amount": "amount"}, {"score": Output("score")}), encode]
        )
        static = {} if identity is None else {"group.instance.id": f"{self.name}/{identity}"}
        source = KafkaSource([f"{self.name}.in"], self.name, "earliest", {**client, **static})
        return Worker(Engine(config, names), source, [stage], KafkaSink(client), SystemClock(), WorkerConfig())

    def run_until_committed(self, worker: Worker, total: int) -> Stopped:
        probe = KafkaSource([f"{self.name}.in"], self.name, "earliest", {"bootstrap.servers": self.servers})
        try:
            return worker.run(until=lambda engine: sum(probe.committed().values()) >= total)
        finally:
            probe.close()

    def read(self, part: str) -> list[Any]:
        """All records of a topic, up to its end now."""
        consumer = Consumer(
            {"bootstrap.servers": self.servers, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
        )
        from confluent_kafka import TopicPartition

        partitions = [TopicPartition(f"{self.name}.{part}", number, 0) for number in range(PARTITIONS)]
        expected = sum(consumer.get_watermark_offsets(one, timeout=10)[1] for one in partitions)
        consumer.assign(partitions)
        records: list[Any] = []
        while len(records) < expected:
            message = consumer.poll(10)
            assert message is not None, f"{part} ended early, after {len(records)} of {expected} records"
            assert message.error() is None
            records.append(message)
        consumer.close()
        return records


@pytest.fixture
def job(kafka: EmbeddedKafka) -> Job:
    made = Job(kafka.bootstrap_servers)
    made.create()
    return made


def event(number: int, amount: float) -> bytes:
    return json.dumps({"id": f"e{number}", "amount": amount}).encode()


def test_d1_d3_every_record_ends_once_and_poison_alone_is_a_dead_letter(job: Job) -> None:
    values: list[bytes | None] = [event(n, 1.5) for n in range(5_000)]
    poison: dict[int, bytes] = {
        10: b"not json",
        11: b'{"id": "x"}',
        12: event(12, 13.0),
        4_000: b"",
        4_001: b'{"id":1}',
    }
    values = [poison.get(n, value) for n, value in enumerate(values)]
    values[100] = None
    job.produce(values)

    job.run_until_committed(job.worker(), 5_000)

    predictions = job.read("out")
    scores = {json.loads(one.value())["id"]: json.loads(one.value())["score"] for one in predictions}
    assert len(predictions) == len(scores) == 5_000 - len(poison) - 1
    assert set(scores.values()) == {3.0}
    assert all(one.key().decode() == json.loads(one.value())["id"] for one in predictions)
    ids = [read_header(dict(one.headers())[HEADER]) for one in predictions]
    assert len({mark.id for mark in ids}) == len(ids)
    assert {(mark.model, mark.revision) for mark in ids} == {("double@1", 0)}
    letters = job.read("dlq")
    assert Counter(one.value() or b"" for one in letters) == Counter(poison.values())
    errors = {one.value() or b"": dict(one.headers())["streamml.dlq.error"] for one in letters}
    assert errors[event(12, 13.0)] == b"ModelRejected"
    assert errors[b"not json"] == b"DecodeError"


def test_d4_predictions_of_a_source_partition_keep_their_order(job: Job) -> None:
    job.produce([event(n, float(n)) if n % 50 else b"poison" for n in range(3_000)])
    job.run_until_committed(job.worker(), 3_000)
    by_key: dict[tuple[str, int], list[int]] = {}
    for one in job.read("out"):
        _, partition, offset = read_header(dict(one.headers())[HEADER]).id.rsplit("/", 2)
        by_key.setdefault((partition, one.partition()), []).append(int(offset))
    assert all(offsets == sorted(offsets) for offsets in by_key.values())


def test_d5_two_workers_share_the_topic_and_one_leaves_without_loss_or_double(job: Job) -> None:
    job.produce([event(n, 2.0) for n in range(3_000)])
    leaving, staying = job.worker(), job.worker()
    thread = threading.Thread(target=leaving.run)
    thread.start()
    leaving.request_stop()
    job.produce([event(n, 2.0) for n in range(3_000, 6_000)])
    job.run_until_committed(staying, 6_000)
    thread.join(timeout=30)
    assert not thread.is_alive()
    seen = Counter(json.loads(one.value())["id"] for one in job.read("out"))
    assert set(seen) == {f"e{n}" for n in range(6_000)}
    assert max(seen.values()) == 1


def test_b2_a_slow_model_fills_the_budget_and_no_more(job: Job) -> None:
    gate = threading.Event()

    def slow(inputs: Columns) -> Columns:
        gate.wait(2.0)
        return {"score": np.asarray(inputs["amount"])}

    job.produce([event(n, 2.0) for n in range(30_000)])
    worker = job.worker(slow, budget_rows=2_000)
    threading.Timer(3.0, gate.set).start()
    job.run_until_committed(worker, 30_000)
    most = worker._engine.gauge.most_rows
    assert 2_000 <= most < 2_000 + WorkerConfig().max_poll_rows
    assert len(job.read("out")) == 30_000
