"""streamml's settings of the broker in Faust's words."""

from __future__ import annotations

import pytest

from streamml.errors import ConfigError
from streamml.settings.settings import Settings
from topologies.flight_delay.faust_client import broker_urls, credentials


def test_brokers_are_urls() -> None:
    assert broker_urls(Settings(brokers="one:9092, two:9093")) == ["kafka://one:9092", "kafka://two:9093"]


def test_a_broker_without_security_needs_no_credentials() -> None:
    assert credentials(Settings(kafka={"queued.max.messages.kbytes": 4096})) is None


def test_every_property_that_faust_does_not_know_is_named() -> None:
    wrong: dict[str, str | int | float | bool] = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.config": "x",
        "ssl.keystore.location": "y",
    }
    with pytest.raises(ConfigError) as told:
        credentials(Settings(kafka=wrong))
    said = "\n".join(told.value.problems)
    assert len(told.value.problems) == 3
    for part in ("sasl.oauthbearer.config", "ssl.keystore.location", "OAUTHBEARER"):
        assert part in said


def test_a_certificate_that_is_not_there_is_a_problem_and_no_crash() -> None:
    with pytest.raises(ConfigError, match=r"ssl\.…"):
        credentials(Settings(kafka={"security.protocol": "SSL", "ssl.ca.location": "/nowhere/ca.pem"}))
