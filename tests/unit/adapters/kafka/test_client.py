"""What the client says of its connections, and what it is told to the user as."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import KafkaError, KafkaException

from streamml.adapters.kafka.client import Trouble, error_of, login_refused, translated
from streamml.errors import FatalError, SourceUnavailable

DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
LOGIN = KafkaError(KafkaError._AUTHENTICATION, "b:1: SASL authentication error (after 301ms in state AUTH_REQ)")
UNTRUSTED = KafkaError(KafkaError._SSL, "b:1: SSL handshake failed: certificate verify failed")
REFUSED = KafkaError(KafkaError._TRANSPORT, "b:1: Receive failed: ssl/tls alert bad certificate")
LOST = KafkaError(KafkaError._TRANSPORT, "b:1: SSL handshake failed: Disconnected")


@pytest.mark.parametrize(
    ("error", "words"),
    [(LOGIN, "sasl.password"), (UNTRUSTED, "ssl.ca.location"), (REFUSED, "ssl.certificate.location")],
)
def test_who_is_refused_is_told_what_to_look_at(error: KafkaError, words: str) -> None:
    trouble = Trouble()
    trouble(error)
    trouble.check()  # Another broker may still answer.
    trouble(DOWN)
    with pytest.raises(FatalError, match=words) as told:
        trouble.check()
    assert "in state" not in str(told.value)


def test_a_connection_that_is_lost_in_a_handshake_is_no_refusal() -> None:
    trouble = Trouble()
    trouble(LOST)
    trouble(DOWN)
    trouble.check()


def test_a_client_that_runs_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger("streamml.login"), "handle", said.append)
    trouble = Trouble(warn=True)
    for _ in range(3):
        trouble(LOGIN)
    assert [one.levelname for one in said] == ["WARNING"]
    assert "refuses the login" in said[0].getMessage()


def test_a_right_that_is_lacking_is_fatal_and_says_how_to_find_it() -> None:
    error = error_of(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "Topic authorization failed"))
    assert isinstance(error, FatalError)
    assert "streamml acls" in str(error)
    assert isinstance(error_of(LOST), SourceUnavailable)
    assert str(error_of(LOGIN)) == str(login_refused(LOGIN))


def test_a_fatal_error_is_told_also_where_a_report_has_stumbled_over_it() -> None:
    fatal = KafkaException(KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED, "no idempotent writes", fatal=True))
    with pytest.raises(FatalError, match="lacks a right"), translated("localhost:9092"):
        raise SystemError("returned a result with an exception set") from fatal
    with pytest.raises(SystemError), translated("localhost:9092"):
        raise SystemError("of another kind")
