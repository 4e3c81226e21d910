"""What a broker says before it ends a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["hear_last_words"]


def hear_last_words(transport: Any) -> None:
    """Have ``transport``, which receives in bulk, hand over what came before the end that it finds while sending.

    kafka-python throws that away. A broker that refuses a password says so and closes the connection: where both
    arrived together, it would be asked again until the time is up.
    """
    send: Callable[[], tuple[int, Any]] = transport._sock_send

    def sent() -> tuple[int, Any]:
        total, error = send()
        if error is not None and transport._protocol is not None and transport._sock is not None:
            data, _ = transport._sock_recv()
            if data:
                transport._protocol.data_received(data)
        return total, error

    transport._sock_send = sent
