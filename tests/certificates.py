"""Certificates of one test session: an authority, the broker's, and those of clients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Certificate:
    """Files of one certificate.

    Args:
        chain: the certificate.
        key: its key.
        both: key and certificate in one file.
    """

    chain: Path
    key: Path
    both: Path


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = trustme.CA()
        self.file = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, password: str | None = None) -> Certificate:
        """A certificate of ``name`` for loopback; with ``password`` its key is encrypted."""
        issued = self._authority.issue_cert(_HOST, common_name=name)
        how: KeySerializationEncryption = (
            NoEncryption() if password is None else BestAvailableEncryption(password.encode())
        )
        # trustme writes keys as OpenSSL once did, which Java does not read.
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
        chain = b"".join(one.bytes() for one in issued.cert_chain_pems)
        files = Certificate(*(self._folder / f"{name}.{part}.pem" for part in ("chain", "key", "both")))
        files.chain.write_bytes(chain)
        files.key.write_bytes(written)
        files.both.write_bytes(written + chain)
        return files
