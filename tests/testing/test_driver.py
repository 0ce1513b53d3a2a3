"""What users test of a topology by the driver."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import streamml as sm
from streamml.adapters.memory.feature_store import MemoryFeatureStore
from streamml.adapters.memory.model import FunctionModel
from streamml.adapters.memory.source import MemorySource
from streamml.batch.column import Columns
from streamml.errors import ConfigError, TopologyError
from streamml.ports.control import Storm
from streamml.ports.model import Signature, Tensor
from streamml.ports.source import TopicPartition
from streamml.settings.settings import WorkerSettings
from streamml.testing import TopologyDriver
from tests.conformance.grounds import Member
from tests.testing.shop import Payment, accounts, driver, payment, payments, score

IN = TopicPartition("payments", 0)


def values(run: TopologyDriver) -> list[str]:
    return [prediction.value["id"] for prediction in run.predictions()]


def test_a_prediction_with_its_features_and_where_it_comes_from() -> None:
    """D3.1, D3.4, F3.1."""
    run = driver()
    sent = run.send(payment(1), key="k", timestamp=1_704_067_200_000, headers=[("trace", b"t1"), ("other", b"x")])
    run.settle()
    (one,) = run.predictions()
    assert one.value == {"id": "p1", "score": 4.0}
    assert (one.id, one.key, one.timestamp) == (sent, b"p1", 1_704_067_200_000)
    assert one.headers == [("trace", b"t1")]
    assert (one.model, one.revision, one.flags) == ("fraud@test", 0, ("accounts@v1",))
    assert sent == "payments/0/0"
    assert run.dead_letters() == []


def test_f2_a_missing_entity_gets_the_defaults_and_says_so() -> None:
    """F2.1, F3.1."""
    run = driver()
    run.send(payment(1, account="bob"))
    run.settle()
    (one,) = run.predictions()
    assert (one.value["score"], one.flags) == (2.0, ("accounts@v1:missing",))


def test_f2_an_old_feature_is_stale_and_a_new_load_mends_that() -> None:
    """F2.2."""
    run = driver()
    run.advance("37h")
    run.send(payment(1))
    run.settle()
    run.features(accounts, {"ann": {"mean": 2.0}}, event_time=datetime(2024, 1, 2, tzinfo=UTC))
    run.send(payment(2))
    run.settle()
    assert [(one.value["score"], one.flags) for one in run.predictions()] == [
        (2.0, ("accounts@v1:stale",)),
        (10.0, ("accounts@v2",)),
    ]


@pytest.mark.parametrize(
    ("poison", "step", "error"),
    [
        (b"not json", "decode", "DecodeError"),
        ({"id": "p", "account": "ann"}, "decode", "DecodeError"),
        (payment(9, amount=-1.0), "inputs", "StepFailed"),
        (payment(9, amount=13.0), "fraud", "ModelRejected"),
    ],
)
def test_e3_poison_alone_is_a_dead_letter_and_its_neighbours_are_scored(poison: Any, step: str, error: str) -> None:
    """E1.1, E2.1."""
    run = driver()
    run.send(payment(1))
    sent = run.send(poison, key="mine", headers=[("h", b"1")])
    run.send(payment(2))
    run.settle()
    assert values(run) == ["p1", "p2"]
    (letter,) = run.dead_letters()
    assert (letter.id, letter.step, letter.error) == (sent, step, error)
    assert (letter.key, letter.headers, letter.offset) == (b"mine", (("h", b"1"),), 1)
    assert letter.value == run.broker.records("payments")[1].value


def test_e3_a_dead_letter_says_which_try_failed_it() -> None:
    """E3.2."""
    run = driver()
    run.store.fail("Redis is away.")
    run.send(b"not json")
    run.send(payment(1, amount=-1.0))
    run.advance("10s")
    retries = run.statistics.retries
    run.store.recover()
    run.settle()
    # The record failed beside rows that waited for the store; the payment, in a later stage that waits for nothing.
    assert retries > 2
    assert [(one.step, one.attempts) for one in run.dead_letters()] == [("decode", retries + 1), ("inputs", 1)]


def test_d4_predictions_keep_the_order_of_each_partition() -> None:
    """D4.1."""
    run = driver(partitions=3)
    for number in range(300):
        run.send(payment(number, amount=13.0 if number % 7 == 0 else 5.0), partition=number % 3)
    run.settle()
    assert len(run.predictions()) + len(run.dead_letters()) == 300
    for partition in range(3):
        mine = [int(one.id.rsplit("/")[-1]) for one in run.predictions() if one.id.split("/")[1] == str(partition)]
        assert mine == sorted(mine)


def test_m1_a_slow_model_makes_larger_batches_and_none_waits_for_a_timer() -> None:
    """M1.1, M1.2."""
    run = driver(service_time={"fraud": lambda rows: 0.010})
    run.send(payment(0))
    run.advance("1.25ms")
    for number in range(1, 101):
        run.send(payment(number))
        run.advance("0.5ms")
    run.settle()
    assert run.batch_rows("fraud") == (1, 18, *[20] * 4, 2)
    assert values(run) == [f"p{number}" for number in range(101)]


def test_m2_rows_that_wait_past_the_budget_are_flagged_late() -> None:
    """M2.1."""
    run = driver(service_time={"fraud": lambda rows: 0.040})
    run.send(payment(0))
    run.advance("1ms")
    run.send(payment(1))
    run.settle()
    assert ["late" in one.flags for one in run.predictions()] == [False, True]


def test_b2_a_slow_model_stops_polling_at_the_budget() -> None:
    """B2.1, B2.2."""
    settings = WorkerSettings(max_in_flight_rows=100, max_poll_rows=40)
    run = driver(settings=settings, service_time={"fraud": lambda rows: 1.0})
    for number in range(500):
        run.send(payment(number))
    run.advance("100ms")
    assert run.statistics.polled == 120
    run.settle()
    assert run.statistics.predictions == 500


def test_d1_nothing_is_committed_before_it_has_ended() -> None:
    """D1.1."""
    run = driver(service_time={"fraud": lambda rows: 1.0})
    assert run.commits() == {IN: 0}
    run.send(payment(1))
    run.send(payment(2))
    run.advance("900ms")
    assert (run.predictions(), run.commits()) == ([], {IN: 0})
    run.advance("400ms")
    assert values(run) == ["p1", "p2"]
    assert run.commits() == {IN: 2}


def test_d1_d3_a_crash_reads_again_what_was_not_committed_under_the_same_ids() -> None:
    """D1.2, D3.1."""
    run = driver()
    run.send(payment(1))
    run.settle()
    sent = run.send(payment(2))
    run.advance("1ms")
    run.crash()
    run.settle()
    assert values(run) == ["p1", "p2", "p2"]
    assert [one.id for one in run.predictions()[1:]] == [sent, sent]
    assert run.commits() == {IN: 2}


def test_d5_a_second_member_takes_over_where_the_first_one_stopped() -> None:
    """D5.1, D5.2."""
    run = driver(partitions=2, service_time={"fraud": lambda rows: 0.5})
    for partition in (0, 1):
        run.send(payment(partition), partition=partition)
    run.advance("1ms")
    other = Member(MemorySource(run.broker, ["payments"], "payments", "earliest"))
    other.source.open(other)
    run.advance("1s")
    other.poll()
    assert len(other.owned) == 1
    assert other.starts() == dict.fromkeys(other.owned, 1)
    assert sorted(values(run)) == ["p0", "p1"]


def test_l3_a_shutdown_finishes_what_fits() -> None:
    """L3.1."""
    run = driver(service_time={"fraud": lambda rows: 1.0})
    run.send(payment(1))
    run.advance("1ms")
    assert run.stop() == 0
    assert values(run) == ["p1"]
    assert run.commits() == {IN: 1}


@pytest.mark.parametrize("policy", ["drop", "forward", "dead_letter"])
def test_e4_tombstones_follow_the_policy(policy: str) -> None:
    """E4.3."""
    run = driver(payments(on_tombstone=policy))
    sent = run.send(None, key="k")
    run.send(payment(1))
    run.settle()
    tombstones = [(one.id, one.key, one.flags) for one in run.predictions() if one.value is None]
    assert tombstones == ([(sent, b"k", ("tombstone",))] if policy == "forward" else [])
    assert [letter.id for letter in run.dead_letters()] == ([sent] if policy == "dead_letter" else [])
    assert run.statistics.filtered == (policy == "drop")
    assert run.commits() == {IN: 2}


def test_e1_a_store_that_is_away_is_waited_for_and_nothing_is_lost() -> None:
    """E1.2, F2.4."""
    run = driver()
    run.store.fail("Redis is away.")
    run.send(payment(1))
    run.advance("10s")
    assert run.predictions() == []
    with pytest.raises(TimeoutError, match=r"1 records.*Redis is away"):
        run.settle(within="1m")
    run.store.recover()
    run.settle()
    assert values(run) == ["p1"]
    assert run.statistics.retries > 3


def test_an_outage_of_the_broker_passes_and_nothing_is_lost() -> None:
    """D1.2."""
    run = driver(service_time={"fraud": lambda rows: 1.0})
    run.send(payment(1))
    run.advance("10ms")
    run.broker.fail("The broker is away.")
    run.send(payment(2))
    run.advance("1m")
    assert run.predictions() == []
    with pytest.raises(TimeoutError, match="away"):
        run.settle()
    run.broker.recover()
    run.settle()
    assert values(run) == ["p1", "p2"]
    assert run.commits() == {IN: 2}


def test_d2_a_prediction_that_the_broker_refuses_is_a_dead_letter() -> None:
    """E3.5."""
    run = driver()
    run.broker.refuse(lambda topic, record: "Too large." if topic == "verdicts" and record.key == b"p1" else None)
    sent = [run.send(payment(number)) for number in range(3)]
    run.settle()
    assert values(run) == ["p0", "p2"]
    assert [(letter.id, letter.error) for letter in run.dead_letters()] == [(sent[1], "EncodeError")]
    assert run.commits() == {IN: 3}


def stormy() -> TopologyDriver:
    """Thirty good records are settled, then twenty bad ones make a storm."""
    run = driver(replace(payments(), dead_letters=sm.DeadLetterQueue("payments.dlq", max_ratio=0.1, min_sample=10)))
    for number in range(30):
        run.send(payment(number))
    run.settle()
    for _ in range(20):
        run.send(b"poison")
    run.advance("1s")
    return run


def test_e4_too_many_dead_letters_pause_the_group_also_after_a_crash_until_it_is_resumed() -> None:
    """E4.1, E4.4, E4.6."""
    run = stormy()
    assert run.group_state.storm == Storm(1.0, 20)
    assert run.commits() == {IN: 30}
    assert len(run.dead_letters()) == 20
    run.send(payment(99))
    run.crash()
    run.advance("1h")
    with pytest.raises(TimeoutError, match="is paused: 100% of the latest 20 records"):
        run.settle()
    assert run.commits() == {IN: 30}
    assert len(values(run)) == 30
    # Whoever mends the cause and started the workers again gets these records again; here they are as bad as before.
    run.resume()
    run.advance("1h")
    assert run.group_state.paused
    assert len(run.dead_letters()) == 40


def test_e4_who_resumes_after_a_storm_goes_on_behind_what_was_weighed() -> None:
    """E4.6."""
    run = stormy()
    run.resume()
    run.send(payment(99))
    run.settle()
    assert run.commits() == {IN: 51}
    assert len(run.dead_letters()) == 20
    assert values(run)[-1] == "p99"


def test_e4_a_pause_by_hand_finishes_what_is_on_its_way_and_takes_nothing_more() -> None:
    """E4.4, E4.5."""
    run = driver(service_time={"fraud": lambda rows: 1.0})
    run.send(payment(1))
    run.advance("1ms")
    run.pause("maintenance")
    run.send(payment(2))
    run.advance("1h")
    assert (values(run), run.commits()) == (["p1"], {IN: 1})
    run.crash()
    run.advance("1h")
    assert values(run) == ["p1"]
    run.resume()
    run.settle()
    assert (values(run), run.commits()) == (["p1", "p2"], {IN: 2})


def test_e4_a_few_dead_letters_at_the_end_are_committed() -> None:
    """E4.2."""
    run = driver(replace(payments(), dead_letters=sm.DeadLetterQueue("payments.dlq", max_ratio=0.1, min_sample=100)))
    for _ in range(20):
        run.send(b"poison")
    run.settle()
    assert run.commits() == {IN: 20}


def test_latest_begins_with_what_is_sent_after_the_driver_was_made() -> None:
    run = driver(replace(payments(), source=sm.Source("payments", schema=Payment, start="latest")))
    run.send(payment(1))
    run.settle()
    assert values(run) == ["p1"]


def test_the_clock_stands_still_unless_told_and_events_may_carry_any_time() -> None:
    start = datetime(2013, 10, 1, tzinfo=UTC)
    run = driver(start=start)
    run.send(payment(1))
    run.send(payment(2), timestamp=start - timedelta(seconds=1))
    run.settle()
    assert run.clock.now() - start.timestamp() < 1
    first, second = run.predictions()
    assert (first.timestamp, "late" in first.flags) == (int(start.timestamp() * 1000), False)
    assert (second.timestamp, "late" in second.flags) == (int(start.timestamp() * 1000) - 1000, True)


class Word(BaseModel):
    id: int
    texts: list[str]


class Length(BaseModel):
    id: int
    text: str
    length: int
    prediction_id: str
    model: str
    revision: int
    flags: str


def split(columns: Columns) -> dict[str, Any]:
    pairs = [(row, text) for row, texts in enumerate(columns["texts"]) for text in texts]
    texts = np.array([text for _, text in pairs], object)
    return {"text": texts, sm.PARENT: np.array([row for row, _ in pairs], np.int64)}


def words() -> sm.Topology:
    return sm.Topology(
        "words",
        source=sm.Source("texts", "more.texts", schema=Word, start="earliest"),
        steps=[
            sm.Explode(split, inputs=("texts",), outputs={"text": "text"}),
            sm.Onnx("length", inputs={"t": "text"}, outputs={"length": "n"}),
        ],
        sink=sm.Sink("lengths", schema=Length, provenance="fields"),
        dead_letters=sm.DeadLetterQueue("texts.dlq"),
    )


def test_several_topics_children_text_and_provenance_in_fields() -> None:
    """D3.1, D3.5, D4.2."""
    run = TopologyDriver(words(), models={"length": lambda tensors: {"n": [len(text) for text in tensors["t"]]}})
    run.send(Word(id=1, texts=["a", "bcd"]))
    run.send({"id": 2, "texts": ["ef"]}, topic="more.texts")
    run.send({"id": 3, "texts": []})
    run.settle()
    found = {one.id: (one.value["text"], one.value["length"], one.model) for one in run.predictions()}
    assert found == {
        "texts/0/0#0": ("a", 1, "length@test"),
        "texts/0/0#1": ("bcd", 3, "length@test"),
        "more.texts/0/0#0": ("ef", 2, "length@test"),
    }
    assert run.statistics.filtered == 1


def test_d3_the_id_of_a_record_that_was_never_exploded_is_the_same_beside_those_that_were() -> None:
    """D3.1."""

    def measure(columns: Columns) -> dict[str, Any]:
        lengths = np.array([len(text) for text in columns["text"]], np.int64)
        return {"length": lengths, **sm.failures(columns["text"] == "bad", "It is bad.")}

    steps = [words().steps[0], sm.Transform(measure, inputs=("text",), outputs={"length": "i8"})]
    run = TopologyDriver(replace(words(), steps=tuple(steps)))
    run.send({"id": 1, "texts": ["a", "bad"]})
    run.send(b"not json")
    run.send({"id": 3, "texts": ["bad"]})
    run.settle()
    assert [one.id for one in run.dead_letters()] == ["texts/0/0#1", "texts/0/1", "texts/0/2#0"]


def test_a_model_with_its_own_signature_and_a_store_that_is_loaded_already() -> None:
    tensor = Tensor("float32", (2,))
    model = FunctionModel("fraud", "7", Signature({"x": tensor}, {"score": Tensor("float64", ())}), score_of_8)
    store = MemoryFeatureStore()
    run = TopologyDriver(payments(), models={"fraud": model}, features=store)
    run.features(accounts, {"ann": {"mean": 5.0}})
    run.send(payment(1))
    run.settle()
    (one,) = run.predictions()
    assert (one.value["score"], one.model) == (8.0, "fraud@7")


def score_of_8(tensors: Columns) -> Columns:
    return {"score": np.full(len(tensors["x"]), 8.0)}


def test_a_wrong_test_is_told_so_with_every_problem() -> None:
    with pytest.raises(TopologyError) as wrong:
        TopologyDriver(payments(), models={"fruad": score}, repository="/nowhere")
    assert any("fruad" in problem for problem in wrong.value.problems)
    assert any("/nowhere" in problem for problem in wrong.value.problems)
    run = driver()
    with pytest.raises(ConfigError, match="mean"):
        run.features(accounts, {"ann": {"maen": 5.0}})
    with pytest.raises(ConfigError, match="no topic"):
        run.send(payment(1), topic="paymnets")
    with pytest.raises(ConfigError, match="partitions 0 to 0"):
        run.send(payment(1), partition=4)


def test_events_are_written_as_json() -> None:
    run = driver()
    run.send(payment(1))
    run.send({"id": "p2", "account": "ann", "amount": 1.5, "at": datetime(2024, 1, 1, tzinfo=UTC)})
    first, second = (json.loads(record.value or b"") for record in run.broker.records("payments"))
    assert first == {"id": "p1", "account": "ann", "amount": 20.0, "at": "2024-01-01T00:00:00"}
    assert second["at"] == "2024-01-01T00:00:00Z"
