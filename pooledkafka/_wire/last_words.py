"""What a broker says before it ends a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["hear_last_words"]


def hear_last_words(transport: Any) -> None:
    """Have ``transport`` hand over what came before the end of its connection, and then its end.

    kafka-python throws away what it has received together with the end, or what it could have received when it finds
    out while sending. A broker that refuses a password says so and closes the connection: where both arrived together,
    it would be asked again until the time is up.
    """
    transport._sock_recv = _received_before_the_end(transport._sock_recv)
    transport._sock_send = _reading_first(transport)


def _received_before_the_end(receive: Callable[[], tuple[bytes, Any]]) -> Callable[[], tuple[bytes, Any]]:
    ended: list[Any] = []

    def received() -> tuple[bytes, Any]:
        data, error = (b"", ended[0]) if ended else receive()
        if error is not None and data:
            ended.append(error)
            return data, None
        return data, error

    return received


def _reading_first(transport: Any) -> Callable[[], tuple[int, Any]]:
    send: Callable[[], tuple[int, Any]] = transport._sock_send

    def sent() -> tuple[int, Any]:
        total, error = send()
        if error is not None and transport._protocol is not None and transport._sock is not None:
            data, _ = transport._sock_recv()
            if data:
                transport._protocol.data_received(data)
        return total, error

    return sent
