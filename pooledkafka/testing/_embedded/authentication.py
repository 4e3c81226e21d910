"""Who may connect: TLS, and the users of the SASL/PLAIN listener."""

from __future__ import annotations

import hmac
import os
import secrets
import ssl
import tempfile
from collections.abc import Mapping

from .._errors import ClusterError
from .._listeners import USERNAME

__all__ = ["Credentials", "tls_context"]


class Credentials:
    """The users of the cluster; ``password`` is that of the one that ``client_options`` names."""

    def __init__(self, users: Mapping[str, str]) -> None:
        for username, password in users.items():
            if not isinstance(username, str) or not isinstance(password, str):
                raise ValueError(
                    f"credentials has the user {username!r} with something that is no string; expected two"
                )
        self.password = secrets.token_urlsafe(12)
        self._users = {**users, USERNAME: self.password}

    def change(self, username: str, password: str) -> None:
        """Give a user another password, or make one."""
        self._users[username] = password
        if username == USERNAME:
            self.password = password

    def are_right(self, username: str, password: str) -> bool:
        """Whether a user has this password."""
        expected = self._users.get(username)
        return expected is not None and hmac.compare_digest(expected.encode(), password.encode())


def tls_context() -> tuple[ssl.SSLContext, str]:
    """A context with a certificate for 127.0.0.1, and the file with the authority that signed it: delete it after use.

    Raises ClusterError where trustme is not installed.
    """
    try:
        import trustme
    except ImportError:
        raise ClusterError(
            "the TLS listener of the embedded cluster needs trustme; pip install 'pooledkafka[embedded]'"
        ) from None
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    handle, path = tempfile.mkstemp(prefix="pooledkafka-ca-", suffix=".pem")
    with os.fdopen(handle, "wb") as file:
        file.write(authority.cert_pem.bytes())
    return context, path
