"""Certificates, good and bad, for brokers and clients."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

__all__ = ["Authority", "server_context"]


class Authority:
    """Signs certificates, and writes them to files, as kafka-python takes them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ca = trustme.CA()
        self.cafile = self._write("ca.pem", self._ca.cert_pem.bytes())

    def issue(self, *names: str, expired: bool = False) -> trustme.LeafCert:
        """A certificate for these names, which has expired or not."""
        yesterday = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)
        return self._ca.issue_cert(*names, not_after=yesterday if expired else None)

    def trusted_by(self, context: ssl.SSLContext) -> None:
        """Let ``context`` trust what it signs."""
        self._ca.configure_trust(context)

    def files_of(self, leaf: trustme.LeafCert, name: str, password: str | None = None) -> dict[str, str]:
        """kafka-python's options for a client certificate, its key encrypted if there is a password."""
        key = leaf.private_key_pem.bytes()
        if password is not None:
            key = serialization.load_pem_private_key(key, None).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password.encode()),
            )
        certificate = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return {
            "ssl_certfile": self._write(f"{name}.pem", certificate),
            "ssl_keyfile": self._write(f"{name}.key", key),
        }

    def _write(self, name: str, data: bytes) -> str:
        path = self._directory / name
        path.write_bytes(data)
        return str(path)


def server_context(leaf: trustme.LeafCert, *, clients: Authority | None = None) -> ssl.SSLContext:
    """The brokers' side; with ``clients``, they must have a certificate of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    if clients is not None:
        clients.trusted_by(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
