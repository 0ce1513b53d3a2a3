"""TLS in front of a server that has none: the Redis that comes with the tests is built without it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from loadtests.faults.proxy import Proxy
from tests.certificates import Certificate


@contextmanager
def tls_relay(to_port: int, certificate: Certificate) -> Iterator[int]:
    """A port on loopback that speaks TLS and passes everything on to ``to_port``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.both)
    relay = Proxy(to_port, context)
    relay.start()
    try:
        yield relay.port
    finally:
        relay.stop()
