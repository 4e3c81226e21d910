"""A token provider that tests hold in their hands."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable

from kafka.net.sasl.oauth import AbstractTokenProvider

__all__ = ["Provider", "unsecured_token"]


def unsecured_token(subject: str = "shop", lifetime_s: float = 3_600) -> str:
    """A JSON Web Token without a signature, as Kafka's own validator for tests takes it."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": now, "exp": now + lifetime_s})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


class Provider(AbstractTokenProvider):  # type: ignore[misc]
    """Gives out what ``make`` returns, and keeps it, with the threads that asked."""

    def __init__(self, make: Callable[[], str] = unsecured_token) -> None:
        self.make = make
        self.given: list[str] = []
        self.threads: set[str] = set()

    def token(self) -> str:
        self.threads.add(threading.current_thread().name)
        token = self.make()
        self.given.append(token)
        return token
