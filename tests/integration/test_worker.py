"""A whole worker on a real broker: records in, JSON codec, a model, predictions and dead letters out."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from pydantic import BaseModel

from streamml.adapters.codecs.json import json_decoder
from streamml.adapters.codecs.json_encode import json_encoder
from streamml.adapters.kafka.offsets import settled_positions
from streamml.adapters.kafka.sink import KafkaSink
from streamml.adapters.kafka.source import KafkaSource
from streamml.adapters.kafka.transactions import KafkaTransactions
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
from streamml.topology.model_steps import Output

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


LARGEST = 20_000


@dataclass
class Job:
    """Topics, a group and workers for one test."""

    servers: str
    name: str = field(default_factory=lambda: f"job-{uuid.uuid4().hex[:8]}")
    exactly_once: bool = False

    def create(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.servers})
        config = {"in": {}, "dlq": {}, "out": {"max.message.bytes": str(LARGEST)}}
        topics = [NewTopic(f"{self.name}.{part}", PARTITIONS, 1, config=config[part]) for part in config]
        for created in admin.create_topics(topics).values():
            created.result()

    def produce(self, values: Sequence[bytes | None]) -> None:
        producer = Producer({"bootstrap.servers": self.servers})
        for index, value in enumerate(values):
            producer.produce(f"{self.name}.in", value, str(index % 50), partition=index % PARTITIONS)
        assert producer.flush(30) == 0

    def worker(
        self,
        model: Callable[[Columns], Columns] = double,
        *,
        budget_rows: int = 100_000,
        budget_bytes: int = 50_000_000,
        max_record_bytes: int = 1_000_000,
        identity: str | None = None,
        poll_interval_ms: int = 6_000,
    ) -> Worker:
        client: dict[str, Any] = {"bootstrap.servers": self.servers}
        names = SlotNames()
        config = EngineConfig(
            stages=(BatchPolicy(500),),
            prediction_topic=f"{self.name}.out",
            dead_letter_topic=f"{self.name}.dlq",
            dead_letter_limit=DeadLetterLimit(0.5, 1000),
            budget=Budget(budget_rows, budget_bytes),
            exactly_once=self.exactly_once,
        )
        tensor = Tensor("float64", ())
        scorer = FunctionModel("double", "1", Signature({"amount": tensor}, {"score": tensor}), model)
        decoder = json_decoder(
            Contract.of(Event), columns=frozenset({"id", "amount"}), max_record_bytes=max_record_bytes
        )
        encode = Encode(json_encoder(Contract.of(Prediction)), names.prefixes, EncodeConfig("id", model="double@1"))
        stage = Stage(
            [Decode(decoder, "drop"), RunModel(scorer, {"amount": "amount"}, {"score": Output("score")}), encode]
        )
        times = {"heartbeat.interval.ms": 300, "session.timeout.ms": poll_interval_ms}
        times["max.poll.interval.ms"] = poll_interval_ms
        static = {} if identity is None else {"group.instance.id": f"{self.name}/{identity}"}
        source = KafkaSource(
            [f"{self.name}.in"], self.name, "earliest", {**client, **times, **static}, transactional=self.exactly_once
        )
        producer = {"batch.size": LARGEST, **client}
        sink = KafkaSink(producer)
        if self.exactly_once:
            own = {"transaction.timeout.ms": 10_000, **producer}
            name, committed = f"{self.name}/{identity or uuid.uuid4().hex}", settled_positions(client, self.name)
            sink = KafkaTransactions(own, name, source.member, committed)
        return Worker(Engine(config, names), source, [stage], sink, SystemClock(), WorkerConfig())

    def run_until_committed(self, worker: Worker, total: int) -> Stopped:
        probe = KafkaSource([f"{self.name}.in"], self.name, "earliest", {"bootstrap.servers": self.servers})
        try:
            return worker.run(until=lambda engine: sum(probe.committed().values()) >= total)
        finally:
            probe.close()

    def read(self, part: str) -> list[Any]:
        """All committed records of a topic, up to its end now."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": uuid.uuid4().hex,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            }
        )
        consumer.assign([TopicPartition(f"{self.name}.{part}", number, 0) for number in range(PARTITIONS)])
        records: list[Any] = []
        ended: set[int] = set()
        while len(ended) < PARTITIONS:
            message = consumer.poll(10)
            assert message is not None, f"{part} ended early, after {len(records)} records"
            error, partition = message.error(), message.partition()
            if error is None:
                records.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                assert partition is not None
                ended.add(partition)
        consumer.close()
        return records


@pytest.fixture(params=[False, True], ids=["at least once", "exactly once"])
def job(kafka: EmbeddedKafka, request: pytest.FixtureRequest) -> Job:
    made = Job(kafka.bootstrap_servers, exactly_once=request.param)
    made.create()
    return made


def event(number: int, amount: float) -> bytes:
    return json.dumps({"id": f"e{number}", "amount": amount}).encode()


def test_d1_d3_every_record_ends_once_and_poison_alone_is_a_dead_letter(job: Job) -> None:
    """D1.2, D3.1, D3.3, L4.1."""
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


def test_d2_e3_a_prediction_that_the_broker_refuses_is_a_dead_letter_and_its_neighbours_are_not(job: Job) -> None:
    """D2.3, E3.5."""
    noise = Random(1).randbytes(LARGEST).hex()
    large = json.dumps({"id": noise, "amount": 1.0}).encode()
    job.produce([event(n, float(n)) for n in range(100, 160)] + [large] + [event(n, float(n)) for n in range(160, 200)])
    job.run_until_committed(job.worker(), 101)
    ids = [json.loads(record.value())["id"] for record in job.read("out")]
    assert sorted(ids) == [f"e{n}" for n in range(100, 200)]
    (letter,) = job.read("dlq")
    assert letter.value() == large
    assert dict(letter.headers())["streamml.dlq.error"] == b"EncodeError"


def test_d4_predictions_of_a_source_partition_keep_their_order(job: Job) -> None:
    """D4.1."""
    job.produce([event(n, float(n)) if n % 50 else b"poison" for n in range(3_000)])
    job.run_until_committed(job.worker(), 3_000)
    by_key: dict[tuple[str, int], list[int]] = {}
    for one in job.read("out"):
        _, partition, offset = read_header(dict(one.headers())[HEADER]).id.rsplit("/", 2)
        by_key.setdefault((partition, one.partition()), []).append(int(offset))
    assert all(offsets == sorted(offsets) for offsets in by_key.values())


def test_d5_two_workers_share_the_topic_and_one_leaves_without_loss_or_double(job: Job) -> None:
    """D5.1, D5.2."""

    def slow(inputs: Columns) -> Columns:
        never.wait(0.02)
        return {"score": np.asarray(inputs["amount"])}

    # Slow enough that rows are in flight whenever partitions come and go.
    never, over = threading.Event(), threading.Event()
    leaving, staying = job.worker(slow), job.worker(slow)
    threads = [threading.Thread(target=leaving.run, daemon=True)]
    threads += [threading.Thread(target=staying.run, kwargs={"until": lambda _: over.is_set()}, daemon=True)]
    total = 0
    for worker, thread in zip((leaving, staying), threads, strict=True):
        thread.start()
        while not worker._engine.statistics.predictions:
            assert thread.is_alive()
            job.produce([event(n, 2.0) for n in range(total, total + 500)])
            total += 500
    leaving.request_stop()
    threads[0].join(timeout=30)
    assert not threads[0].is_alive()
    probe = KafkaSource([f"{job.name}.in"], job.name, "earliest", {"bootstrap.servers": job.servers})
    end = time.monotonic() + 60
    while sum(probe.committed().values()) < total:
        assert time.monotonic() < end
        assert threads[1].is_alive()
        time.sleep(0.02)
    probe.close()
    over.set()
    threads[1].join(timeout=30)
    assert leaving._engine.statistics.predictions + staying._engine.statistics.predictions == total
    seen = Counter(json.loads(one.value())["id"] for one in job.read("out"))
    assert set(seen) == {f"e{n}" for n in range(total)}
    assert max(seen.values()) == 1


def test_b1_a_batch_longer_than_the_poll_interval_costs_no_membership_and_scores_each_row_once(job: Job) -> None:
    """B1.1."""
    calls: list[int] = []
    interval_ms = 3_000

    def long_once(inputs: Columns) -> Columns:
        calls.append(len(inputs["amount"]))
        if len(calls) == 3:
            threading.Event().wait(3 * interval_ms / 1000)
        return {"score": np.asarray(inputs["amount"])}

    job.produce([event(n, 2.0) for n in range(3_000)])
    worker = job.worker(long_once, poll_interval_ms=interval_ms)
    job.run_until_committed(worker, 3_000)
    assert worker._engine.statistics.dropped_stale == 0
    assert sum(calls) == 3_000
    seen = Counter(json.loads(one.value())["id"] for one in job.read("out"))
    assert (len(seen), max(seen.values())) == (3_000, 1)


def test_b2_a_slow_model_fills_the_budget_and_no_more(job: Job) -> None:
    """B2.1."""
    never, calls = threading.Event(), list[int]()

    def slow(inputs: Columns) -> Columns:
        if not calls:
            while worker._engine.gauge.most_rows < 2_000:
                never.wait(0.01)
            # As long as it would take to poll all of the rest.
            never.wait(1.0)
        calls.append(len(inputs["amount"]))
        return {"score": np.asarray(inputs["amount"])}

    job.produce([event(n, 2.0) for n in range(20_000)])
    worker = job.worker(slow, budget_rows=2_000)
    job.run_until_committed(worker, 20_000)
    most = worker._engine.gauge.most_rows
    assert 2_000 <= most < 2_000 + WorkerConfig().max_poll_rows
    assert len(job.read("out")) == 20_000
