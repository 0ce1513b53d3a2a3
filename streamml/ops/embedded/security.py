"""Secured listeners and rights of an embedded broker, for tests of clients that have to log in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from streamml.ops.embedded.process import free_port

MECHANISM: Final = "SCRAM-SHA-512"


@dataclass(frozen=True)
class KafkaSecurity:
    """A listener with TLS and SCRAM, and one with client certificates; both ask for rights.

    Whoever comes by the plain listener is the super user: it is the broker's own, and that of those who grant rights.

    Args:
        certificate: PEM file: the broker's key (PKCS 8, not encrypted), its certificate, and those that vouch for it.
        authority: PEM file: who may have issued the certificates of clients.
        users: names of SCRAM users and their passwords. They are on the command line of the tool that prepares the
            broker's folder, so they must be of no worth elsewhere.
        sasl_port, certificate_port: of the two listeners.
    """

    certificate: Path
    authority: Path
    users: Mapping[str, str] = field(repr=False)
    sasl_port: int = field(default_factory=free_port)
    certificate_port: int = field(default_factory=free_port)

    @property
    def ports(self) -> tuple[int, int]:
        return self.sasl_port, self.certificate_port

    @property
    def sasl_servers(self) -> str:
        """``host:port`` for clients that log in by name and password."""
        return f"127.0.0.1:{self.sasl_port}"

    @property
    def certificate_servers(self) -> str:
        """``host:port`` for clients that have a certificate; the user is its common name."""
        return f"127.0.0.1:{self.certificate_port}"

    def added_to(self, settings: Mapping[str, str]) -> dict[str, str]:
        """The broker's settings with these listeners."""
        listeners = f"LOGIN://{self.sasl_servers},CERTIFICATE://{self.certificate_servers}"
        protocols = "LOGIN:SASL_SSL,CERTIFICATE:SSL"
        return {
            **settings,
            "listeners": f"{settings['listeners']},{listeners}",
            "advertised.listeners": f"{settings['advertised.listeners']},{listeners}",
            "listener.security.protocol.map": f"{settings['listener.security.protocol.map']},{protocols}",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.certificate),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority),
            "sasl.enabled.mechanisms": MECHANISM,
            f"listener.name.login.{MECHANISM.lower()}.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "listener.name.certificate.ssl.client.auth": "required",
            "listener.name.certificate.ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": "User:ANONYMOUS",
        }

    def format_arguments(self) -> list[str]:
        """What the tool that prepares the broker's folder has to be told: the users are part of it."""
        return [
            text
            for name, password in self.users.items()
            for text in ("--add-scram", f"{MECHANISM}=[name={name},password={password}]")
        ]
