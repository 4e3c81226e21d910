"""Keeps what a client says to prove who it is out of kafka-python's log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka.protocol.sasl import SaslAuthenticateRequest, SaslBytesRequest

__all__ = ["be_discreet"]

_now = threading.local()  # .silent: whether what this thread logs there now would tell a secret


class _Discretion(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_now, "silent", False)


_discretion = _Discretion()
for _name in ("kafka.net.connection", "kafka.protocol.parser"):
    logging.getLogger(_name).addFilter(_discretion)


@contextmanager
def _silence() -> Iterator[None]:
    before = getattr(_now, "silent", False)
    _now.silent = True
    try:
        yield
    finally:
        _now.silent = before


def be_discreet(connection: Any) -> None:
    """Drop the debug records of ``connection`` with passwords, tokens, and what a password could be guessed from.

    kafka-python logs each request and answer, in words and in bytes. While a connection logs in nothing else is on its
    way there, so nothing else is missing from the log for that. What waits to be written because the connection is
    paused is logged when it is written; therefore it is what is written that counts, not who asks for it.
    """
    send, receive = connection._send_request, connection.data_received
    held = _Held()

    def send_request(request: Any, **how: Any) -> Any:
        if not isinstance(request, (SaslAuthenticateRequest, SaslBytesRequest)):
            return send(request, **how)
        _watch(connection.parser, held)
        held.unwritten = True
        with _silence():
            future = send(request, **how)
        held.unanswered = True
        future.add_both(lambda _: held.answered())
        return future

    def data_received(data: bytes) -> None:
        if not held.unanswered:
            receive(data)
            return
        with _silence():
            receive(data)

    connection._send_request, connection.data_received = send_request, data_received


class _Held:
    """What one connection holds that is not to be logged; the I/O thread's."""

    def __init__(self) -> None:
        self.unwritten = False
        self.unanswered = False

    def answered(self) -> None:
        self.unanswered = False


def _watch(parser: Any, held: _Held) -> None:
    if "send_bytes" in vars(parser):
        return
    send_bytes: Callable[[], bytes] = parser.send_bytes

    def discreetly() -> bytes:
        if not held.unwritten:
            return send_bytes()
        held.unwritten = False
        with _silence():
            return send_bytes()

    parser.send_bytes = discreetly
