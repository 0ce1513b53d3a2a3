"""Settings: which source wins, what is refused, what is masked."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamml.adapters.kafka import membership, sink
from streamml.errors import SettingsError
from streamml.settings.settings import REFUSED, masked
from streamml.settings.sources import described, read_settings


def toml(folder: Path, text: str) -> Path:
    path = folder / "streamml.toml"
    path.write_text(text)
    return path


def test_flag_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = toml(tmp_path, 'brokers = "file:1"\ngroup = "file"\n[worker]\ndrain_ms = 1234\n')
    environment = {"STREAMML_BROKERS": "env:1", "STREAMML_GROUP": "env"}
    effective = read_settings({"brokers": "flag:1", "group": None}, environment=environment, file=file)
    settings = effective.settings
    assert (settings.brokers, settings.group, settings.worker.drain_ms) == ("flag:1", "env", 1234)
    assert settings.worker.max_poll_rows == 4096
    assert effective.origins["brokers"] == "flag"
    assert effective.origins["group"] == "STREAMML_GROUP"


def test_librdkafka_properties_pass_through_with_their_dots(tmp_path: Path) -> None:
    file = toml(
        tmp_path, '[kafka]\nsecurity.protocol = "SASL_SSL"\n"sasl.username" = "me"\n[kafka.producer]\nlinger.ms = 7\n'
    )
    settings = read_settings(environment={"STREAMML_KAFKA_SASL_PASSWORD": "secret"}, file=file).settings
    assert settings.client() == {
        "security.protocol": "SASL_SSL",
        "sasl.username": "me",
        "sasl.password": "secret",
        "bootstrap.servers": "127.0.0.1:9092",
    }
    assert settings.producer()["linger.ms"] == 7
    assert "linger.ms" not in settings.consumer()


def test_every_problem_comes_at_once(tmp_path: Path) -> None:
    """E1.4."""
    file = toml(tmp_path, 'colour = "red"\n[worker]\ndrain_ms = 1\n[kafka]\n"group.id" = "mine"\n')
    environment = {"STREAMML_NOTHING": "1", "STREAMML_REDIS_TIMEOUT_MS": "soon"}
    with pytest.raises(SettingsError) as caught:
        read_settings(environment=environment, file=file)
    problems = caught.value.problems
    assert len(problems) == 5
    for word in ("colour", "worker.drain_ms", "group.id", "STREAMML_NOTHING", "redis.timeout_ms"):
        assert any(word in problem for problem in problems), word


@pytest.mark.parametrize(
    "text", ["stuck_after_ms = 9999", "drain_ms = 600000", "drain_ms = 2000\nstuck_after_ms = 2500"]
)
def test_l2_the_watchdog_leaves_time_for_a_drain(text: str, tmp_path: Path) -> None:
    """L2.1."""
    with pytest.raises(SettingsError, match=r"worker\.stuck_after_ms .* worker\.drain_ms \(\d+\) by 5000"):
        read_settings(environment={}, file=toml(tmp_path, f"[worker]\n{text}\n"))
    enough = toml(tmp_path, "[worker]\nstuck_after_ms = 10000\n")
    assert read_settings(environment={}, file=enough).settings.worker.drain_ms == 5000


def test_a_name_that_is_none_comes_with_its_place_and_the_nearest_that_is(tmp_path: Path) -> None:
    file = toml(tmp_path, '[reddis]\nurl = "redis://x"\n[worker]\nmax_pol_rows = 5\n')
    environment = {"STREAMML_BROKER": "x", "STREAMML_WORKER__MAX_POLL_ROWS": "5"}
    with pytest.raises(SettingsError) as caught:
        read_settings({"metrics.port": 99_999}, environment=environment, file=file)
    beginnings = (
        f"{file} sets reddis, which is no setting (did you mean redis?)",
        f"{file} sets worker.max_pol_rows, which is no setting (did you mean worker.max_poll_rows?)",
        "The environment variable STREAMML_BROKER is no setting (did you mean STREAMML_BROKERS?)",
        "The environment variable STREAMML_WORKER__MAX_POLL_ROWS is no setting (did you mean STREAMML_WORKER_MAX_POLL_ROWS?)",
        "--metrics-port sets metrics.port wrongly",
    )
    assert len(caught.value.problems) == len(beginnings)
    for beginning in beginnings:
        assert any(problem.startswith(beginning) for problem in caught.value.problems), beginning


@pytest.mark.parametrize("name", REFUSED)
def test_properties_that_the_promises_rest_on_are_refused(name: str, tmp_path: Path) -> None:
    """D7.1."""
    with pytest.raises(SettingsError, match="refused"):
        read_settings(environment={}, file=toml(tmp_path, f'[kafka]\n"{name}" = "x"\n'))


def test_what_adapters_hold_fixed_no_setting_may_change() -> None:
    """D7.1."""
    assert (membership.SAFETY.keys() | sink.SAFETY.keys()) <= REFUSED.keys()
    assert {membership.SAFETY["enable.auto.commit"], membership.SAFETY["enable.auto.offset.store"]} == {False}


def test_secrets_are_masked() -> None:
    environment = {
        "STREAMML_KAFKA_SASL_PASSWORD": "hunter2",
        "STREAMML_KAFKA_SSL_KEY_PASSWORD": "hunter2",
        "STREAMML_REDIS_URL": "rediss://user:hunter2@redis:6380/0",
    }
    shown = described(read_settings(environment=environment))
    assert "hunter2" not in repr(shown)
    assert any(one.value == "rediss://user:****@redis:6380/0" for one in shown)


@pytest.mark.parametrize(
    "name",
    [
        "kafka.sasl.password",
        "kafka.ssl.key.password",
        "kafka.ssl.key.pem",
        "kafka.ssl.keystore.password",
        "kafka.sasl.oauthbearer.client.secret",
        "kafka.sasl.oauthbearer.assertion.private.key.passphrase",
        "redis.options.password",
        "redis.options.ssl_password",
        "redis.options.ssl_key_passphrase",
        "redis.options.passwd",
        "redis.options.ssl_key_data",
    ],
)
def test_what_is_called_like_a_secret_is_masked(name: str) -> None:
    assert masked(name, "hunter2") == "****"


@pytest.mark.parametrize("name", ["kafka.ssl.ca.location", "kafka.ssl.key.location", "kafka.sasl.username", "brokers"])
def test_what_is_not_is_shown(name: str) -> None:
    assert masked(name, "there") == "there"


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:hunter2@h:1/0",
        "redis://:hunter2@h:1/0",
        "redis://u:x/hunter2@h:1/0",
        "redis://u:x@hunter2@h:1/0",
        "redis://u:x:hunter2@h:1/0",
        "redis://h:1/0?username=u&password=hunter2&db=1",
    ],
)
def test_a_password_in_a_url_is_masked_whatever_it_holds(url: str) -> None:
    shown = masked("redis.url", url)
    assert "hunter2" not in shown
    assert "h:1/0" in shown


def test_a_value_is_never_quoted_in_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(environment={"STREAMML_WORKER_DRAIN_MS": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_toml_and_one_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not TOML"):
        read_settings(environment={}, file=toml(tmp_path, "= ="))
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings(environment={}, file=tmp_path / "no.toml")


def test_the_new_group_protocol_leaves_sessions_to_the_broker(tmp_path: Path) -> None:
    new = '[worker]\ngroup_protocol = "consumer"\n'
    assert read_settings(environment={}, file=toml(tmp_path, new)).settings.consumer()["group.protocol"] == "consumer"
    with pytest.raises(SettingsError, match=r"consumer\.session\.timeout\.ms"):
        read_settings(environment={}, file=toml(tmp_path, f'{new}[kafka.consumer]\n"session.timeout.ms" = 6000\n'))
