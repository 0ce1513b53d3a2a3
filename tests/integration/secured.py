"""A broker that asks for a login and for rights, and those who come to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from streamml.ops.acls import Right
from streamml.ops.embedded.kafka import EmbeddedKafka
from streamml.ops.embedded.security import MECHANISM, KafkaSecurity
from tests.certificates import Authority, Certificate

USER: Final = "worker"
PASSWORD: Final = "sasl-hunter2"
KEY_PASSWORD: Final = "key-hunter2"
_RESOURCES: Final = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP}


class Secured:
    """A broker that asks for a login and for rights, and who may come."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "certificates")
        self.certificate: Certificate = self.authority.issue(USER, KEY_PASSWORD)
        self.server: Certificate = self.authority.issue("server")
        self.stranger = Authority(folder / "others")
        self.security = KafkaSecurity(self.server.both, self.authority.file, {USER: PASSWORD})
        self.broker = EmbeddedKafka(folder / "kafka", security=self.security)
        self.broker.start()
        self._admin = AdminClient({"bootstrap.servers": self.broker.bootstrap_servers})

    def stop(self) -> None:
        del self._admin
        self.broker.stop()

    def sasl(self, **changes: str) -> dict[str, Any]:
        """Settings of a client with name and password."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": MECHANISM,
            "sasl.username": USER,
            "sasl.password": PASSWORD,
            "ssl.ca.location": str(self.authority.file),
            **{name.replace("_", "."): value for name, value in changes.items()},
        }

    def mtls(self) -> dict[str, Any]:
        """Settings of a client with a certificate."""
        return {
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.authority.file),
            "ssl.certificate.location": str(self.certificate.chain),
            "ssl.key.location": str(self.certificate.key),
            "ssl.key.password": KEY_PASSWORD,
        }

    def grant(self, rights: Sequence[Right]) -> None:
        """Returns when the broker knows."""
        bindings = list({_binding(one) for one in rights})
        for future in self._admin.create_acls(bindings).values():
            future.result()
        self._until(lambda known: set(bindings) <= known)

    def take(self, right: Right) -> None:
        """Returns when the broker knows."""
        binding = _binding(right)
        for future in self._admin.delete_acls([_filter(binding)]).values():
            future.result()
        self._until(lambda known: binding not in known)

    def _until(self, met: Callable[[set[AclBinding]], bool]) -> None:
        any_of: Any = AclBindingFilter  # Its stub does not know that a name may be any.
        every = any_of(
            ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
        )
        deadline = time.monotonic() + 20
        while not met(set(self._admin.describe_acls(every).result())):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def _binding(right: Right) -> AclBinding:
    kind, operation = _RESOURCES[right.resource], AclOperation[right.operation]
    pattern = ResourcePatternType[right.pattern.upper()]
    return AclBinding(kind, right.name, pattern, right.principal, "*", operation, AclPermissionType.ALLOW)


def _filter(one: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        one.restype, one.name, one.resource_pattern_type, one.principal, one.host, one.operation, one.permission_type
    )
