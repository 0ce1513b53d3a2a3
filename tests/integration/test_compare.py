"""Runs compared with live predictions and with each other, on a real broker."""

from __future__ import annotations

import pytest

from streamml.errors import ConfigError, TopologyError
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.replay.compare import CompareOptions, compare
from tests.integration.replayed import HOUR_MS, START_MS, Shop

pytestmark = pytest.mark.integration


@pytest.fixture(params=["header", "fields"])
def shop(kafka: EmbeddedKafka, request: pytest.FixtureRequest) -> Shop:
    return Shop(kafka.bootstrap_servers, provenance=request.param)


def test_every_row_is_counted_once_as_what_it_is(shop: Shop) -> None:
    """D3.7."""
    shop.events([number * HOUR_MS // 4 for number in range(12)])
    for number in range(12):
        shop.predict(shop.live_topic, number, 0.1, time=number * HOUR_MS // 4)
    first = shop.replay()
    for number in (4, 5):  # corrections of an earlier run, the one for 4 twice
        shop.predict(shop.live_topic, number, 0.9, time=number * HOUR_MS // 4, revision=first.number)
    shop.predict(shop.live_topic, 4, 0.9, time=4 * HOUR_MS // 4, revision=first.number)
    run = shop.replay()
    shop.predict(shop.live_topic, 0, 0.7, time=0, revision=run.number + 1)  # a later run's does not count
    for number, value in ((0, 0.1), (1, 0.1 + 1e-9), (2, 0.6), (3, 0.2), (4, 0.9), (5, 0.1), (6, 0.1)):
        shop.predict(run.into, number, value, time=number * HOUR_MS // 4, revision=run.number)
    shop.predict(run.into, 11, 0.4, time=11 * HOUR_MS // 4, revision=run.number + 7)  # none of this run's
    shop.letter(run.letters, 7, time=7 * HOUR_MS // 4)
    shop.letter(run.letters, 8, time=8 * HOUR_MS // 4)
    shop.letter(run.letters, 8, time=8 * HOUR_MS // 4, taken_back=True)
    shop.letter(run.letters, 9, time=9 * HOUR_MS // 4)
    shop.letter(f"{shop.name}.dlq", 9, time=9 * HOUR_MS // 4)
    shop.letter(f"{shop.name}.dlq", 3, time=3 * HOUR_MS // 4)
    shop.flush()
    found = compare(shop.topology, shop.settings, run, CompareOptions(thresholds={"risk": 0.5}))
    counts = found.counts
    assert (counts.same, counts.changed) == (4, 3)
    assert counts.missing == 3  # 8, 10, 11
    assert (counts.dead_lettered, counts.still_dead_lettered, counts.recovered) == (1, 1, 1)
    assert found.letters == {"price: StepFailed": 1}
    risk = next(one for one in found.fields if one.name == "risk")
    assert [(one.id, one.before, one.after) for one in risk.movers] == [
        (shop.id(5), 0.9, 0.1),
        (shop.id(2), 0.1, 0.6),
        (shop.id(3), 0.1, 0.2),
        (shop.id(1), 0.1, 0.1 + 1e-9),
    ]
    assert [(one.up, one.down) for one in found.flips] == [(1, 1)]
    assert found.flipped == 2
    assert [(one.start_ms, one.same, one.changed) for one in found.hours] == [
        (START_MS, 2, 2),
        (START_MS + HOUR_MS, 2, 1),
        (START_MS + 2 * HOUR_MS, 0, 0),
    ]


def test_distributions_are_of_the_values_that_each_side_has(kafka: EmbeddedKafka) -> None:
    shop = Shop(kafka.bootstrap_servers)
    shop.events([0] * 101)
    run = shop.replay()
    for number in range(101):
        shop.predict(shop.live_topic, number, float(number), time=0, label="good" if number % 2 else "bad")
        shop.predict(run.into, number, float(number) + 50, time=0, label="good", revision=run.number, parts=[number])
    shop.flush()
    found = compare(shop.topology, shop.settings, run, CompareOptions())
    fields = {one.name: one for one in found.fields}
    risk = fields["risk"]
    assert risk.before is not None
    assert risk.after is not None
    assert risk.change is not None
    assert risk.histogram is not None
    assert risk.before.quantiles == (1, 5, 25, 50, 75, 95, 99)
    assert (risk.before.mean, risk.after.mean, risk.after.least, risk.after.largest) == (50, 100, 50, 150)
    assert (risk.change.rows, risk.change.mean, risk.change.largest_absolute) == (101, 50, 50)
    assert sum(risk.histogram.before) == sum(risk.histogram.after) == 101
    assert (risk.histogram.edges[0], risk.histogram.edges[-1]) == (0, 150)
    label = fields["label"]
    assert {(one.value, one.before, one.after) for one in label.values} == {("good", 50, 101), ("bad", 51, 0)}
    assert [(one.before, one.after, one.rows) for one in label.turns] == [("bad", "good", 51)]
    assert fields["parts"].changed == 101
    assert fields["order"].changed == 0


def test_a_run_is_compared_with_another_run(kafka: EmbeddedKafka) -> None:
    shop = Shop(kafka.bootstrap_servers)
    shop.events([0, 1])
    first, second = shop.replay(), shop.replay()
    for run, risks in ((first, (0.1, 0.2)), (second, (0.1, 0.3))):
        for number, risk in enumerate(risks):
            shop.predict(run.into, number, risk, time=number, revision=run.number)
    shop.flush()
    found = compare(shop.topology, shop.settings, second, CompareOptions(against=first))
    assert (found.counts.same, found.counts.changed, found.counts.rows) == (1, 1, 2)
    assert found.against == str(first.number)


def test_only_the_live_rows_of_the_run_count_however_they_lie(kafka: EmbeddedKafka) -> None:
    """D3.7: live predictions come in another order than their records, and late."""
    shop = Shop(kafka.bootstrap_servers)
    shop.events([0, 50, 10, 60])
    run = shop.replay()
    shop.events([5, 100, 200])
    for number, time in ((6, 200), (4, 5), (3, 60), (1, 50), (5, 100), (2, 10), (0, 0)):
        shop.predict(shop.live_topic, number, 0.1, time=time)
    for number, time in enumerate((0, 50, 10, 60)):
        shop.predict(run.into, number, 0.1, time=time, revision=run.number)
    shop.flush()
    found = compare(shop.topology, shop.settings, run, CompareOptions())
    assert (found.counts.same, found.counts.rows) == (4, 4)


def test_a_topic_with_the_brokers_times_is_read_as_a_whole(kafka: EmbeddedKafka) -> None:
    shop = Shop(kafka.bootstrap_servers, config={"message.timestamp.type": "LogAppendTime"})
    shop.events([0, 1])
    run = shop.replay()
    for number in (0, 1):
        shop.predict(shop.live_topic, number, 0.1, time=number)
        shop.predict(run.into, number, 0.1, time=number, revision=run.number)
    shop.flush()
    found = compare(shop.topology, shop.settings, run, CompareOptions())
    assert (found.counts.same, found.counts.rows) == (2, 2)
    assert "message.timestamp.type" in found.notes[0]


def test_rows_that_are_not_as_the_schema_says_are_compared_byte_by_byte(kafka: EmbeddedKafka) -> None:
    shop = Shop(kafka.bootstrap_servers)
    shop.events([0, 0, 0, 0])
    run = shop.replay()
    for topic, revision, values in (
        (shop.live_topic, 0, (b'{"risk": "high"}', b"nothing", None, b'{"order": "\xff"}')),
        (run.into, run.number, (b'{"risk": "high"}', b"else", None, b'{"order": "\xff"}')),
    ):
        for number, value in enumerate(values):
            shop.produce(topic, value, "k", START_MS, [("streamml", f"1;{shop.id(number)};m@1;{revision};".encode())])
    shop.produce(shop.live_topic, b"{}", "k", START_MS, [("streamml", b"\xff;1;x"), ("other", b"")])
    shop.produce(shop.live_topic, b"{}", "k", START_MS, [])
    shop.flush()
    found = compare(shop.topology, shop.settings, run, CompareOptions())
    assert (found.counts.same, found.counts.changed, found.counts.rows) == (3, 1, 4)
    assert "3 of the run's predictions are not what the topology's schema says" in found.notes[0]


def test_children_are_rows_and_a_letter_of_their_record_is_of_all(kafka: EmbeddedKafka) -> None:
    shop = Shop(kafka.bootstrap_servers)
    shop.events([0, 0])
    run = shop.replay()
    for child in (0, 1):
        shop.predict(shop.live_topic, 0, 0.1, time=0, child=child)
        shop.predict(shop.live_topic, 1, 0.1, time=0, child=child)
        shop.predict(run.into, 0, 0.1 + child, time=0, child=child, revision=run.number)
    shop.letter(run.letters, 1, time=0)
    shop.flush()
    counts = compare(shop.topology, shop.settings, run, CompareOptions()).counts
    assert (counts.same, counts.changed, counts.missing, counts.dead_lettered) == (1, 1, 0, 1)


def test_rows_outside_of_a_runs_condition_are_not_missing(kafka: EmbeddedKafka) -> None:
    shop = Shop(kafka.bootstrap_servers)
    shop.events([0, 0])
    run = shop.replay(where="amount > 3")
    for number in (0, 1):
        shop.predict(shop.live_topic, number, 0.1, time=0)
    shop.predict(run.into, 0, 0.2, time=0, revision=run.number)
    shop.flush()
    found = compare(shop.topology, shop.settings, run, CompareOptions())
    assert (found.counts.changed, found.counts.missing) == (1, 0)
    assert "amount > 3" in found.notes[0]


def test_nothing_of_a_secret_field_or_of_keys_that_may_repeat_it_is_told(kafka: EmbeddedKafka) -> None:
    shop = Shop(kafka.bootstrap_servers, secret=["order", "risk"])
    shop.events([0])
    run = shop.replay()
    shop.predict(shop.live_topic, 0, 0.123, time=0, key="card-4711")
    shop.predict(run.into, 0, 0.456, time=0, key="card-4711", label="bad", revision=run.number)
    shop.flush()
    found = compare(shop.topology, shop.settings, run, CompareOptions())
    told = str(found.document())
    assert found.counts.changed == 1
    assert "4711" not in told
    assert "0.123" not in told
    assert "0.456" not in told
    with pytest.raises(ConfigError, match="secret"):
        compare(shop.topology, shop.settings, run, CompareOptions(thresholds={"risk": 0.5}))
    with pytest.raises(ConfigError, match="secret"):
        compare(shop.topology, shop.settings, run, CompareOptions(key="order"))


def test_all_that_cannot_be_compared_is_said_at_once(kafka: EmbeddedKafka) -> None:
    shop = Shop(kafka.bootstrap_servers)
    run = shop.replay(topology="another")
    with pytest.raises(ConfigError) as raised:
        compare(
            shop.topology,
            shop.settings,
            run,
            CompareOptions(
                against=run, thresholds={"rsk": 1.0, "label": 1.0, "risk": float("nan")}, key="x", tolerance=2
            ),
        )
    assert len(raised.value.problems) == 8


def test_a_target_that_was_deleted_is_said(kafka: EmbeddedKafka) -> None:
    shop = Shop(kafka.bootstrap_servers)
    run = shop.replay()
    shop.admin.delete_topics([run.into])
    with pytest.raises(TopologyError, match="deleted"):
        compare(shop.topology, shop.settings, run, CompareOptions())
