"""Runs published as corrections, on a real broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException

from streamml.adapters.kafka.copying import KafkaCopy
from streamml.cli.main import exit_code_of
from streamml.errors import ConfigError, FatalError, Fenced
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.replay.publish import Publication, Publisher, PublishOptions
from streamml.ops.replay.registry import find
from streamml.ops.replay.replay import Replay
from streamml.ports.sink import OutboundRecords
from tests.integration.replayed import START_MS, Shop

pytestmark = pytest.mark.integration


@pytest.fixture(params=["at_least_once", "exactly_once"])
def shop(kafka: EmbeddedKafka, request: pytest.FixtureRequest) -> Shop:
    return Shop(kafka.bootstrap_servers, guarantee=request.param)


@pytest.fixture
def plain(kafka: EmbeddedKafka) -> Shop:
    """At least once."""
    return Shop(kafka.bootstrap_servers)


@pytest.fixture
def strict(kafka: EmbeddedKafka) -> Shop:
    """Exactly once."""
    return Shop(kafka.bootstrap_servers, guarantee="exactly_once")


def published(shop: Shop, run: Replay, **options: Any) -> Publication:
    with Publisher.open(shop.topology, shop.settings, run, PublishOptions(**options)) as publisher:
        return publisher.write()


def some_run(shop: Shop, count: int = 6) -> Replay:
    """Live predictions of ``count`` records, and a run that changes those with an odd number."""
    shop.events(list(range(count)))
    run = shop.replay(recorded=True)
    for number in range(count):
        shop.predict(shop.live_topic, number, 0.1, time=number)
        shop.predict(run.into, number, 0.9 if number % 2 else 0.1, time=number, revision=run.number)
    shop.flush()
    return run


def corrections(shop: Shop, run: Replay) -> list[str]:
    return sorted(id for id, revision, _ in shop.live() if revision == run.number)


def test_a_run_is_published_once_as_it_is(shop: Shop) -> None:
    """D3.9, D3.10."""
    run = some_run(shop)
    before = len(shop.live())
    done = published(shop, run)
    assert (done.chosen, done.written, done.complete) == (6, 6, True)
    again = published(shop, run)
    assert (again.written, again.complete) == (0, True)
    assert len(shop.live()) == before + 6
    theirs = {
        (one.record.key, one.record.value, str(one.record.headers), one.record.timestamp) for one in shop.read(run.into)
    }
    ours = {
        (one.record.key, one.record.value, str(one.record.headers), one.record.timestamp)
        for one in shop.read(shop.live_topic)
    }
    assert theirs <= ours
    partitions = {one.record.key: one.partition.partition for one in shop.read(shop.live_topic)}
    assert all(partitions[one.record.key] == one.partition.partition for one in shop.read(shop.live_topic))
    assert (find(shop.settings, shop.name, run.number).published_ms or 0) > START_MS / 2


def test_nothing_is_written_by_looking(plain: Shop) -> None:
    """D3.9."""
    run = some_run(plain)
    before = sorted(plain.live())
    with Publisher.open(plain.topology, plain.settings, run, PublishOptions(changed_only=True)) as publisher:
        assert (publisher.plan.chosen, publisher.plan.left) == (3, 3)
        assert publisher.plan.counts is not None
        assert publisher.plan.counts.changed == 3
    assert sorted(plain.live()) == before
    assert find(plain.settings, plain.name, run.number).published_ms is None


def test_only_what_changed_is_published(strict: Shop) -> None:
    run = some_run(strict)
    assert published(strict, run, changed_only=True).written == 3
    assert corrections(strict, run) == sorted(strict.id(number) for number in (1, 3, 5))
    assert published(strict, run, changed_only=True).written == 0
    with pytest.raises(ConfigError, match=r"'changed-only within 1e-06', and not 'all'"):
        published(strict, run)
    assert len(corrections(strict, run)) == 3


def test_a_correction_never_stands_behind_a_newer_prediction_of_its_key(strict: Shop) -> None:
    """The keys a, b, c and d: superseded in the live topic, newest, newest with an equal time, and of a record that is out of order."""
    strict.events([10, 20, 30, 40, 40, 60, 55, 70])
    run = strict.replay(recorded=True)
    keys = ("a", "a", "b", "c", "c", "d", "d", "new")
    times = (10, 20, 30, 40, 40, 60, 55, 70)
    for number, (key, at) in enumerate(zip(keys, times, strict=True)):
        if key != "new":
            strict.predict(strict.live_topic, number, 0.1, time=at, key=key)
        strict.predict(run.into, number, 0.9, time=at, key=key, revision=run.number)
    strict.flush()
    strict.events([80])
    strict.predict(strict.live_topic, 8, 0.5, time=80, key="a")
    strict.flush()
    done = published(strict, run, only_latest_per_key=True)
    assert done.written == 4
    assert corrections(strict, run) == sorted(strict.id(number) for number in (2, 4, 5, 7))


@pytest.mark.parametrize("meanwhile", [False, True])
def test_an_earlier_run_never_takes_back_what_a_later_one_has_corrected(plain: Shop, meanwhile: bool) -> None:
    """Of a key's record 3, the later run's correction stays the last."""
    earlier = some_run(plain)
    later = plain.replay(recorded=True)
    plain.predict(later.into, 3, 0.7, time=3, revision=later.number)
    plain.flush()
    options = PublishOptions(only_latest_per_key=True)
    if not meanwhile:
        published(plain, later)
    with Publisher.open(plain.topology, plain.settings, earlier, options) as publisher:
        if meanwhile:
            published(plain, later)
        done = publisher.write()
    assert (done.written, done.overtaken) == (5, 1 if meanwhile else 0)
    assert corrections(plain, earlier) == sorted(plain.id(number) for number in (0, 1, 2, 4, 5))


def test_what_comes_while_it_is_published_overtakes_it(plain: Shop) -> None:
    run = some_run(plain)
    options = PublishOptions(only_latest_per_key=True)
    with Publisher.open(plain.topology, plain.settings, run, options) as publisher:
        assert publisher.plan.left == 6
        plain.events([100])
        plain.predict(plain.live_topic, 6, 0.3, time=100, key="o3")
        plain.flush()
        done = publisher.write()
    assert (done.written, done.overtaken) == (5, 1)
    assert plain.id(3) not in corrections(plain, run)


def test_d3_what_comes_in_the_middle_of_a_transaction_takes_it_back(
    strict: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D3.11: even a prediction that gets in between the look and the writing is not overwritten."""
    shop = strict
    run = some_run(shop)
    shop.events([100])
    looked: list[bool] = []
    original = Publisher._not_overtaken

    def slow(self: Publisher, block: Any) -> Any:
        kept = original(self, block)
        if not looked:
            shop.predict(shop.live_topic, 6, 0.3, time=100, key="o3")
            shop.flush()
        looked.append(True)
        return kept

    monkeypatch.setattr(Publisher, "_not_overtaken", slow)
    done = published(shop, run, only_latest_per_key=True)
    assert (done.written, done.overtaken, len(looked)) == (5, 1, 2)
    assert corrections(shop, run) == sorted(shop.id(number) for number in (0, 1, 2, 4, 5))


_CHILD = """
import sys
from streamml.ops.replay import publish
from streamml.ops.replay.registry import find
from tests.integration.replayed import Shop
publish._BLOCK_ROWS = 20
brokers, guarantee, name, number = sys.argv[1:]
shop = object.__new__(Shop)
shop.__dict__.update(brokers=brokers, guarantee=guarantee, name=name, provenance="header", secret=(), partitions=2, config={})
run = find(shop.settings, name, int(number))
told = lambda what, count: print(what, count, flush=True)
with publish.Publisher.open(shop.topology, shop.settings, run, publish.PublishOptions(rate=60, progress=told)) as publisher:
    publisher.write()
"""


def test_d3_a_publication_that_is_killed_goes_on_without_writing_anything_twice(shop: Shop) -> None:
    """D3.10: under exactly-once each id and revision is there once, otherwise at least once."""
    run = some_run(shop, 200)
    arguments = [sys.executable, "-c", _CHILD, shop.brokers, shop.guarantee, shop.name, str(run.number)]
    with subprocess.Popen(arguments, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith("published") and int(line.split()[1]) >= 40:
                    break
        finally:
            child.send_signal(signal.SIGKILL)
    some = corrections(shop, run)
    assert 40 <= len(some) < 200
    done = published(shop, run)
    assert done.complete
    assert done.written < 200
    found = corrections(shop, run)
    assert set(found) == {shop.id(number) for number in range(200)}
    if shop.guarantee == "exactly_once":
        assert len(found) == 200


@pytest.mark.parametrize("lost", [False, True], ids=["", "and the client loses its error between two callbacks"])
def test_d3_of_two_that_publish_one_run_the_later_goes_on(
    strict: Shop, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D3.10."""
    produce = KafkaCopy._produce

    def lossy(copy: KafkaCopy, block: OutboundRecords) -> None:
        try:
            produce(copy, block)
        except (KafkaException, SystemError):
            raise SystemError("returned NULL without setting an exception") from None

    if lost:
        monkeypatch.setattr(KafkaCopy, "_produce", lossy)
    shop = strict
    run = some_run(shop)
    second: list[Publication] = []

    def overtake(what: str, count: int) -> None:
        if what == "published" and not second:
            second.append(Publication(0, "", ""))
            second.append(published(shop, run))

    options = PublishOptions(rate=2, progress=overtake)
    with (
        Publisher.open(shop.topology, shop.settings, run, options) as publisher,
        pytest.raises(Fenced, match="goes on with it"),
    ):
        publisher.write()
    assert second[1].complete
    assert corrections(shop, run) == sorted(shop.id(number) for number in range(6))


def test_a_run_that_is_not_done_is_refused_unless_asked_for_by_name(plain: Shop) -> None:
    shop = plain
    shop.events([0])
    run = shop.replay(recorded=True, state="failed")
    shop.predict(run.into, 0, 0.9, time=0, revision=run.number)
    shop.flush()
    with pytest.raises(ConfigError, match="is failed, and not done"):
        published(shop, run)
    assert shop.live() == []
    assert published(shop, run, unfinished=True).written == 1
    assert find(shop.settings, shop.name, run.number).state == "failed"


def test_a_run_of_another_topology_or_into_the_live_topic_is_refused(plain: Shop) -> None:
    shop = plain
    run = shop.replay(topology="another", into=shop.live_topic)
    with pytest.raises(ConfigError) as raised:
        published(shop, run)
    assert len(raised.value.problems) == 2


def test_a_target_that_was_deleted_is_refused_and_one_that_was_made_anew_is_published_already(
    plain: Shop,
) -> None:
    """A broker forgets the positions of a topic that is deleted."""
    shop = plain
    run = some_run(shop)
    published(shop, run)
    shop.admin.delete_topics([run.into])
    with pytest.raises(ConfigError, match="is gone"):
        published(shop, run)
    deadline = time.monotonic() + 30
    while not shop.admin.topics([run.into]) and time.monotonic() < deadline:
        shop.remake(run.into)
    for number in range(6):
        shop.predict(run.into, number, 0.9, time=number, revision=run.number)
    shop.flush()
    found = published(shop, find(shop.settings, shop.name, run.number))
    assert (found.written, found.complete) == (0, True)
    assert len(corrections(shop, run)) == 6


def test_d3_a_prediction_that_the_topic_refuses_is_said_and_nothing_of_its_block_counts(kafka: EmbeddedKafka) -> None:
    """D3.10."""
    shop = Shop(kafka.bootstrap_servers, guarantee="exactly_once", config={"max.message.bytes": "1000"})
    shop.events([0, 1])
    run = shop.replay(recorded=True)
    shop.predict(run.into, 0, 0.9, time=0, revision=run.number)
    shop.predict(run.into, 1, 0.9, time=1, revision=run.number, label=os.urandom(2000).hex())
    shop.flush()
    with pytest.raises(FatalError, match=r"refuses a prediction.*max\.message\.bytes"):
        published(shop, run)
    assert shop.live() == []


def test_publishing_by_hand_needs_a_yes(plain: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = plain
    run = some_run(shop)
    (tmp_path / "topology.py").write_text(
        f"from tests.integration.replayed import Shop\nshop = object.__new__(Shop)\n"
        f"shop.__dict__.update(name={shop.name!r}, provenance='header', secret=())\ntopology = shop.topology\n"
    )
    common = [f"{tmp_path / 'topology.py'}:topology", str(run.number), "--brokers", shop.brokers]
    assert exit_code_of(["replay", "publish", *common]) == 0
    assert "6 predictions would be written" in capsys.readouterr().out
    assert len(shop.live()) == 6
    assert (
        exit_code_of(["replay", "diff", *common, "--page", str(tmp_path / "page.html"), "--threshold", "risk=0.5"]) == 0
    )
    told = capsys.readouterr().out
    assert "crossed a threshold" in told
    assert "No key has more than one row that differs" in told
    assert "<svg" in (tmp_path / "page.html").read_text()
    assert exit_code_of(["replay", "diff", *common, "--fail-if", "changed > 10%", "--json"]) == 1
    assert '"failed": ["changed > 10%: there are 3 of 6 rows, 50.00 %"]' in capsys.readouterr().out
    assert exit_code_of(["replay", "publish", *common, "--rate", "1000/s", "--yes"]) == 0
    assert "6 predictions are written" in capsys.readouterr().out
    assert exit_code_of(["replay", "publish", *common, "--yes"]) == 0
    assert "already" in capsys.readouterr().out
    assert len(shop.live()) == 12
