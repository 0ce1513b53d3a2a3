"""Logins and rights on a broker and a Redis that ask for them."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis as client

from streamml.adapters.kafka.admin import KafkaAdmin
from streamml.adapters.redis.catalogue import change, put
from streamml.adapters.redis.connection import Server
from streamml.adapters.redis.loader import LoadPlan, load
from streamml.adapters.redis.nodes import Nodes
from streamml.adapters.redis.rights import LOADING
from streamml.adapters.redis.versions import remove
from streamml.batch.column import object_array
from streamml.errors import ConfigError, FatalError, FeaturesUnavailable, StreamMLError, TopologyError
from streamml.ops.acls import Right, least_rights
from streamml.ops.dead_letters import read_dead_letters
from streamml.ops.embedded.redis import EmbeddedRedis
from streamml.ops.features import rollback, show, versions
from streamml.ops.pause import pause, resume
from streamml.ops.run import RunOptions, StopSignal, run
from streamml.ops.topics import create_topics
from streamml.ports.feature_store import FeatureSchema
from streamml.settings.settings import RedisSettings, Settings
from streamml.settings.sources import read_settings
from tests.integration.scoring import NOW, Job, payment
from tests.integration.secured import PASSWORD, USER, Secured
from tests.tls_relay import tls_relay

pytestmark = pytest.mark.integration


@pytest.fixture
def job(secured: Secured, redis_server: EmbeddedRedis, tmp_path: Path) -> Job:
    """Made and fed by the super user on the plain listener: two events and one that cannot be read."""
    made = Job(secured.broker.bootstrap_servers, redis_server.url, tmp_path)
    made.create()
    made.features({"a1": 10.0})
    made.produce([payment(1), b"hello", payment(2)])
    return made


def login(job: Job, secured: Secured, kafka: dict[str, Any] | None = None) -> Settings:
    """The job's settings, as the worker's user."""
    kafka = kafka or secured.sasl()
    servers = secured.security.sasl_servers if "sasl.mechanism" in kafka else secured.security.certificate_servers
    return job.settings.model_copy(update={"brokers": servers, "kafka": kafka})


def printed(job: Job, purpose: str = "worker") -> tuple[Right, ...]:
    """What `streamml acls` prints."""
    found = least_rights(job.topology, job.settings, USER)
    return next(one.kafka for one in found if one.purpose == purpose)


def work(job: Job, settings: Settings) -> dict[str, Any]:
    return run(job.located, settings, RunOptions(until_caught_up=True, patience_s=0.0), StopSignal())


def all_is_well(job: Job) -> bool:
    return set(job.predictions()) == {"p1", "p2"} and [value for value, _, _ in job.letters()] == [b"hello"]


@pytest.mark.parametrize("way", ["sasl", "mtls"])
def test_a_worker_needs_no_more_than_what_is_printed(
    way: str, job: Job, secured: Secured, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("streamml"), "propagate", True)
    secured.grant(printed(job))
    settings = login(job, secured, getattr(secured, way)())
    summary = work(job, settings)
    assert (summary["predictions"], summary["dead_letters"]) == (2, 1)
    assert "DESCRIBE_CONFIGS" in caplog.text
    assert f"Group {job.name} cannot be paused" in caplog.text
    assert all_is_well(job)
    secured.grant([*printed(job, "topics create"), *printed(job, "pause")])
    pause(job.topology, settings, "by hand", wait_s=0.0, waiting=pytest.fail)
    assert work(job, settings)["paused"]["reason"] == "by hand"
    resume(job.topology, settings, wait_s=0.0, waiting=pytest.fail)
    with pytest.raises(FatalError, match=f"{job.name}.dlq"):
        list(read_dead_letters(job.topology, settings))
    secured.grant(printed(job, "dlq"))
    assert [one.error for one in read_dead_letters(job.topology, settings)] == ["DecodeError"]


TOPICS = [("READ", "in"), ("WRITE", "out"), ("WRITE", "dlq")]


def named(job: Job, operation: str, part: str) -> Right:
    name = f"{job.name}.{part}" if part else job.name
    return next(one for one in printed(job) if (one.operation, one.name) == (operation, name))


@pytest.mark.parametrize(("operation", "part"), [*TOPICS, ("READ", "")])
def test_one_right_less_is_told_at_the_start_and_nothing_is_lost(
    operation: str, part: str, job: Job, secured: Secured
) -> None:
    lacking = named(job, operation, part)
    secured.grant([one for one in printed(job) if one != lacking])
    with pytest.raises(TopologyError) as told:
        work(job, login(job, secured))
    (problem,) = told.value.problems
    what = "consumer group" if lacking.resource == "group" else "topic"
    assert f"lacks the right {operation} on the {what} {lacking.name!r}" in problem
    secured.grant([lacking])
    assert work(job, login(job, secured))["predictions"] == 2
    assert all_is_well(job)


@pytest.mark.parametrize(("operation", "part"), TOPICS)
def test_a_right_that_is_taken_from_a_running_worker_stops_it_and_nothing_is_lost(
    operation: str, part: str, job: Job, secured: Secured
) -> None:
    secured.grant(printed(job))
    errors: list[StreamMLError] = []
    running = threading.Event()

    def work_on() -> None:
        try:
            run(job.located, login(job, secured), RunOptions(), StopSignal(), started=lambda *known: running.set())
        except StreamMLError as error:
            errors.append(error)

    thread = threading.Thread(target=work_on, daemon=True)
    thread.start()
    assert running.wait(30)
    while not all_is_well(job):
        assert thread.is_alive()
        thread.join(0.05)
    secured.take(named(job, operation, part))
    job.produce([payment(3), b"there"])
    thread.join(60)
    assert not thread.is_alive()
    assert isinstance(errors[0], FatalError)
    assert "right" in str(errors[0])
    # Which one, says the start of the next.
    with pytest.raises(TopologyError, match=f"lacks the right {operation} on the topic {job.name + '.' + part!r}"):
        work(job, login(job, secured))
    secured.grant(printed(job))
    work(job, login(job, secured))
    # At least once: what was sent and not committed is sent again.
    assert {json.loads(one.record.value or b"")["id"] for one in job.read("out")} == {"p1", "p2", "p3"}
    assert {value for value, _, _ in job.letters()} == {b"hello", b"there"}


def test_a_topic_of_which_nothing_may_be_known_is_told_as_such(job: Job, secured: Secured) -> None:
    secured.grant([one for one in printed(job) if one.name != f"{job.name}.out"])
    with pytest.raises(TopologyError) as told:
        work(job, login(job, secured))
    (problem,) = told.value.problems
    assert "lacks the right DESCRIBE on it" in problem
    assert f"{job.name}.out" in problem


def test_kafka_derives_describe_from_the_other_rights(job: Job, secured: Secured) -> None:
    secured.grant([one for one in printed(job) if one.operation != "DESCRIBE"])
    names = [f"{job.name}.{part}" for part in ("in", "out", "dlq")]
    assert set(KafkaAdmin(login(job, secured).client()).find_topics(names).topics) == set(names)


def test_topics_are_created_with_the_rights_that_are_printed(secured: Secured, tmp_path: Path) -> None:
    job = Job(secured.broker.bootstrap_servers, "redis://unused", tmp_path)
    with pytest.raises(FatalError, match="DESCRIBE"):
        create_topics(job.topology, login(job, secured), 2, -1)
    secured.grant(printed(job, "topics create"))
    made, _ = create_topics(job.topology, login(job, secured), 2, -1)
    assert len(made) == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sasl_password": "wrong-hunter2"}, "sasl.password"),
        ({"sasl_username": "nobody"}, "sasl.username"),
        ({"sasl_mechanism": "PLAIN"}, "sasl.mechanism"),
        ({"ssl_ca_location": "others"}, "ssl.ca.location"),
    ],
)
def test_a_login_that_fails_is_told_at_once_by_every_command(
    changes: dict[str, str], words: str, job: Job, secured: Secured
) -> None:
    if "ssl_ca_location" in changes:
        changes = {"ssl_ca_location": str(secured.stranger.file)}
    settings = login(job, secured, secured.sasl(**changes))
    for ask in (work_of(job, settings), listing_of(job, settings), creating_of(job, settings)):
        with pytest.raises((FatalError, TopologyError), match=words) as told:
            ask()
        assert "hunter2" not in str(told.value)


def work_of(job: Job, settings: Settings) -> Any:
    return lambda: work(job, settings)


def listing_of(job: Job, settings: Settings) -> Any:
    return lambda: list(read_dead_letters(job.topology, settings))


def creating_of(job: Job, settings: Settings) -> Any:
    return lambda: create_topics(job.topology, settings, 1, -1)


def test_a_client_without_a_certificate_is_told(job: Job, secured: Secured) -> None:
    kafka = {name: value for name, value in secured.mtls().items() if name in ("security.protocol", "ssl.ca.location")}
    with pytest.raises(TopologyError, match=r"ssl\.certificate\.location"):
        work(job, login(job, secured, kafka))


def test_a_key_that_does_not_open_is_told_before_anything(job: Job, secured: Secured) -> None:
    with pytest.raises(ConfigError, match=r"ssl\.key\.location") as told:
        work(job, login(job, secured, {**secured.mtls(), "ssl.key.password": "wrong-hunter2"}))
    assert "hunter2" not in str(told.value)


def test_logins_come_from_the_file_and_the_environment(job: Job, secured: Secured, tmp_path: Path) -> None:
    secured.grant(printed(job))
    file = tmp_path / "streamml.toml"
    file.write_text(
        f"""
        brokers = "{secured.security.sasl_servers}"
        [kafka]
        security.protocol = "SASL_SSL"
        sasl.mechanism = "SCRAM-SHA-512"
        "sasl.username" = "{USER}"
        ssl.ca.location = "{secured.authority.file}"
        """
    )
    environment = {"STREAMML_KAFKA_SASL_PASSWORD": PASSWORD, "STREAMML_REDIS_URL": job.redis_url}
    settings = read_settings(environment=environment, file=file).settings
    assert work(job, settings)["predictions"] == 2


@dataclass
class Guarded:
    """A Redis user with the rights that are printed, or fewer."""

    server: EmbeddedRedis
    job: Job
    name: str = field(default_factory=lambda: f"user-{uuid.uuid4().hex[:8]}")

    def allow(self, rule: str | None) -> None:
        assert rule is not None
        words = rule.replace("PASSWORD", PASSWORD).split()
        with client.Redis(port=self.server.port) as admin:
            admin.execute_command(*words[:2], self.name, *words[3:])

    def url(self, scheme: str = "redis", port: int | None = None) -> str:
        return f"{scheme}://{self.name}:{PASSWORD}@127.0.0.1:{port or self.server.port}/0"

    def settings(self, **changes: Any) -> Settings:
        redis = RedisSettings(**{"url": self.url(), "timeout_ms": 2000, **changes})
        return self.job.settings.model_copy(update={"redis": redis})

    def forget(self) -> None:
        with client.Redis(port=self.server.port) as admin:
            admin.acl_deluser(self.name)


@pytest.fixture
def guarded(job: Job, redis_server: EmbeddedRedis) -> Iterator[Guarded]:
    found = Guarded(redis_server, job)
    found.allow(redis_rule(job))
    yield found
    found.forget()


def redis_rule(job: Job, purpose: str = "worker") -> str:
    found = least_rights(job.topology, job.settings, USER)
    rule = next(one.redis for one in found if one.purpose == purpose)
    assert rule is not None
    return rule


def test_the_redis_user_needs_no_more_than_what_is_printed(job: Job, guarded: Guarded) -> None:
    assert work(job, guarded.settings())["predictions"] == 2
    with pytest.raises(FeaturesUnavailable, match=f"does not permit this to user '{guarded.name}'"):
        versions(job.name, url=guarded.url())


@pytest.mark.parametrize("right", ["+mget", "+ping", "~streamml:"])
def test_one_right_less_on_redis_is_told_and_nothing_is_lost(right: str, job: Job, guarded: Guarded) -> None:
    rule = redis_rule(job)
    guarded.allow(" ".join(word for word in rule.split() if not word.startswith(right)))
    with pytest.raises((FeaturesUnavailable, TopologyError)) as told:
        work(job, guarded.settings())
    assert f"does not permit this to user '{guarded.name}'" in str(told.value)
    assert "streamml acls" in str(told.value)
    guarded.allow(rule)
    assert work(job, guarded.settings())["predictions"] == 2


def use_features(job: Job, url: str) -> None:
    """All that `streamml features` sends."""
    first = versions(job.name, url=url).complete()[-1].version
    # Entities that come again, in the same load, are counted and written once more.
    job.features({"a1": 1.0})
    twice = object_array(["a1", "a1"], 2)
    at = np.full(2, int(NOW.timestamp() * 1e6)).astype("M8[us]")
    rows = [{"account": twice, "event_time": at, "mean": np.ones(2, "f4")}] * 2
    plan = LoadPlan(FeatureSchema(job.name, tuple(job.accounts.columns.items())), ("account",))
    load(Server(url), plan, rows)
    assert show(job.name, ["a1"], url=url).columns == {"mean": 1.0}
    assert rollback(job.name, first, url=url).version == first
    last = versions(job.name, url=url).versions[-1]
    with closing(Nodes(Server(url))) as nodes:
        change(nodes, job.name, lambda _: [put(job.name, replace(last, state="pruning"))])
        remove(nodes, job.name, last.version)


def test_features_are_loaded_by_a_user_with_the_rights_that_are_printed_and_none_is_too_many(
    job: Job, guarded: Guarded
) -> None:
    rule = redis_rule(job, "features")
    job.redis_url = guarded.url()
    guarded.allow(rule)
    use_features(job, guarded.url())
    for command in LOADING:
        guarded.allow(" ".join(word for word in rule.split() if word != f"+{command}"))
        with pytest.raises(FeaturesUnavailable, match="does not permit this"):
            use_features(job, guarded.url())


def test_redis_by_tls(job: Job, guarded: Guarded, secured: Secured) -> None:
    with tls_relay(guarded.server.port, secured.server) as port:
        url = guarded.url("rediss", port)
        settings = guarded.settings(url=url, options={"ssl_ca_certs": str(secured.authority.file)})
        assert work(job, settings)["predictions"] == 2
        strange = guarded.settings(url=url, options={"ssl_ca_certs": str(secured.stranger.file)})
        with pytest.raises(FeaturesUnavailable, match="certificate") as told:
            work(job, strange)
    assert "hunter2" not in str(told.value)


def test_a_wrong_redis_password_is_told(job: Job, guarded: Guarded) -> None:
    settings = guarded.settings(url=guarded.url().replace(PASSWORD, "wrong-hunter2"))
    with pytest.raises(FeaturesUnavailable, match=f"refused the login of user '{guarded.name}'") as told:
        work(job, settings)
    assert "hunter2" not in str(told.value)
