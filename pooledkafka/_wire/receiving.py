"""Takes from a socket what is there, in a few calls."""

from __future__ import annotations

import ssl
from typing import Any

from kafka.errors import KafkaConnectionError
from kafka.net.transport import KafkaSSLTransport

__all__ = ["receive_in_bulk"]

_FIRST, _MOST = 4_096, 262_144
"""Most answers fit in the first; a part that is too large for what comes costs its memory each time."""
_TLS_RECORD = 16_384
_NOTHING_MORE = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def receive_in_bulk(transport: Any) -> None:
    """Have ``transport`` receive in growing parts; of TLS, a record at a time.

    kafka-python's receives 4 KiB at a time. Each time it lets other threads run, and where they compute, it gets its
    turn again when the switch interval is over, 5 ms later.
    """
    is_secure = isinstance(transport, KafkaSSLTransport)

    def received() -> tuple[bytes, Any]:
        parts = []
        error = None
        size = _TLS_RECORD if is_secure else _FIRST
        while True:
            try:
                part = transport._sock.recv(size)
            except _NOTHING_MORE:
                break
            except Exception as failure:
                error = KafkaConnectionError(failure)
                error.__cause__ = failure
                break
            if not part:
                error = KafkaConnectionError("socket disconnected")
                break
            parts.append(part)
            if is_secure:
                continue  # the end of a record says nothing of what else there is
            if len(part) < size:
                break
            size = min(size * 8, _MOST)
        return b"".join(parts), error

    transport._sock_recv = received
