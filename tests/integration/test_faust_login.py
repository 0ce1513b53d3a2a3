"""Faust's client logs in by the settings of streamml."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from streamml.settings.settings import Settings
from tests.integration.secured import Secured
from topologies.flight_delay.faust_client import credentials

# aiokafka leaves connections of logins, refused ones at least, to the collector.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.leaves_connections,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


def test_the_client_of_faust_logs_in_by_the_settings_of_streamml(secured: Secured) -> None:
    """By name and password, and by certificate, over TLS."""
    asyncio.run(log_in(Settings(brokers=secured.security.sasl_servers, kafka=secured.sasl())))
    asyncio.run(log_in(Settings(brokers=secured.security.certificate_servers, kafka=secured.mtls())))


@pytest.mark.logs_errors("Unable connect to")
def test_a_wrong_password_does_not_get_in(secured: Secured) -> None:
    wrong = secured.sasl(sasl_password="wrong")
    with pytest.raises(KafkaConnectionError):
        asyncio.run(log_in(Settings(brokers=secured.security.sasl_servers, kafka=wrong)))


async def log_in(settings: Settings) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.brokers, **credentials_to_aiokafka_auth(credentials(settings))
    )
    try:
        await consumer.start()
        assert await consumer.topics() is not None
    finally:
        await consumer.stop()
