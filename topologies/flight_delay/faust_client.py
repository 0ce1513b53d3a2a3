"""streamml's settings of the broker in the words of Faust, which has a client of its own (aiokafka)."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from streamml.errors import ConfigError
from streamml.settings.settings import Property, Settings

if TYPE_CHECKING:
    from faust.auth import Credentials

_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_SESSION_MS: Final = 10_000
_UNDERSTOOD: Final = frozenset(
    (
        "security.protocol",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.key.location",
        "ssl.key.password",
        "ssl.endpoint.identification.algorithm",
        "enable.ssl.certificate.verification",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.username",
        "sasl.password",
    )
)
_ABOUT_SECURITY: Final = ("ssl.", "sasl.", "security.", "enable.ssl", "oauth")


def broker_urls(settings: Settings) -> list[str]:
    """The brokers as Faust takes them."""
    return [f"kafka://{one.strip()}" for one in settings.brokers.split(",")]


def session_s(settings: Settings) -> float:
    """After how long, in seconds, the group gives a member up that is not heard of."""
    return float(settings.consumer().get("session.timeout.ms", _SESSION_MS)) / 1000


def credentials(settings: Settings) -> Credentials | None:
    """What Faust needs for TLS and SASL; ``None`` for a broker without either.

    Raises:
        ConfigError: properties under ``[kafka]`` that Faust has no counterpart of, or files that cannot be read; every problem.
    """
    properties = {**settings.kafka, **settings.kafka_consumer}
    problems = [
        f"Faust has no counterpart of {name} under [kafka]; it knows {', '.join(sorted(_UNDERSTOOD))}."
        for name in properties
        if name.startswith(_ABOUT_SECURITY) and name not in _UNDERSTOOD
    ]
    protocol = str(properties.get("security.protocol", "plaintext")).upper()
    mechanism = str(properties.get("sasl.mechanism", properties.get("sasl.mechanisms", "PLAIN"))).upper()
    if protocol not in _PROTOCOLS:
        problems.append(f"security.protocol is {protocol!r}; it is one of {', '.join(_PROTOCOLS)}.")
    if protocol.startswith("SASL") and mechanism not in _MECHANISMS:
        problems.append(f"Faust cannot log in by {mechanism} here; sasl.mechanism is one of {', '.join(_MECHANISMS)}.")
    if problems:
        raise ConfigError(problems)
    return _credentials(properties, protocol, mechanism)


def _credentials(properties: Mapping[str, Property], protocol: str, mechanism: str) -> Credentials | None:
    from faust.auth import SASLCredentials, SSLCredentials

    context = _context(properties) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        user, password = (str(properties.get(name, "")) for name in ("sasl.username", "sasl.password"))
        return SASLCredentials(username=user, password=password, ssl_context=context, mechanism=mechanism)
    return None if context is None else SSLCredentials(context)


def _context(properties: Mapping[str, Property]) -> ssl.SSLContext:
    def path(name: str) -> Any:
        return properties.get(name)

    try:
        context = ssl.create_default_context(cafile=path("ssl.ca.location"))
        if path("ssl.certificate.location"):
            context.load_cert_chain(
                path("ssl.certificate.location"), path("ssl.key.location"), path("ssl.key.password")
            )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"A certificate or key under [kafka] (ssl.…) cannot be read: {error}.") from None
    if str(properties.get("ssl.endpoint.identification.algorithm", "https")) == "none":
        context.check_hostname = False
    if str(properties.get("enable.ssl.certificate.verification", "true")).lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
