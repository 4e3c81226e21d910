"""Takes from a socket what is there, in a few calls and with few copies."""

from __future__ import annotations

import ssl
from typing import Any

from kafka.errors import KafkaConnectionError
from kafka.net.transport import KafkaSSLTransport
from kafka.protocol.frame import KafkaBytes

__all__ = ["NOT_NOW", "count_received", "receive_in_bulk"]

_FIRST = 4_096
"""Most answers fit in this many bytes."""
_TLS_RECORD = 16_384
NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""By which a socket says that it has, or takes, nothing more at the moment."""


class _Frame(KafkaBytes):  # type: ignore[misc]
    """An answer that is being received: what is read of it is copied once, where kafka-python copies it twice."""

    def read(self, nbytes: int | None = None) -> bytes:
        at = self.tell()
        end = len(self) if nbytes is None else min(len(self), at + nbytes)
        self.seek(end)
        with memoryview(self) as whole:
            return bytes(whole[at:end])


def receive_in_bulk(transport: Any) -> None:
    """Have ``transport`` receive long answers straight into where they are decoded, and what came before an end first.

    kafka-python's receives 4 KiB at a time, and copies all of it three times until it is where it is decoded. Each time
    it lets other threads run, and where they compute, it gets its turn again when the switch interval is over, 5 ms
    later. And what it has received together with the end of a connection it throws away: see ``last_words``.
    """
    is_secure = isinstance(transport, KafkaSSLTransport)
    first = _TLS_RECORD if is_secure else _FIRST
    ended: Exception | None = None

    def received() -> tuple[bytes, Any]:
        nonlocal ended
        while ended is None:
            if transport._closed:  # by what was just received
                return b"", KafkaConnectionError("connection closed")
            data = b""
            try:
                frame = _long_frame(transport)
                if frame is None:
                    asked = first
                    data = transport._sock.recv(first)
                    came = len(data)
                else:
                    # All but the last byte: kafka-python looks at the whole when the parser is given that.
                    asked = len(frame) - frame.tell() - 1
                    with memoryview(frame) as whole:
                        came = transport._sock.recv_into(whole[frame.tell() : -1])
                    frame.seek(frame.tell() + came)
                    count_received(transport, came)
            except NOT_NOW:
                return b"", None
            except Exception as failure:
                ended = KafkaConnectionError(failure)
                ended.__cause__ = failure.with_traceback(None)  # which would keep the frame
                break
            if not came:
                ended = KafkaConnectionError("socket disconnected")
            elif came < asked and not is_secure:  # of TLS, the end of a record says nothing of what else there is
                return data, None
            elif data:
                count_received(transport, came)
                try:
                    transport._protocol.data_received(data)
                except Exception as failure:  # the task that reads expects that of what it hands over itself
                    ended = failure
        return b"", ended

    transport._sock_recv = received


def _long_frame(transport: Any) -> Any:
    """The answer that is being received, if what is missing of it is worth to be received in place."""
    parser = getattr(transport._protocol, "parser", None)
    if parser is None or not parser._receiving:
        return None
    frame = parser._rbuffer
    if len(frame) - frame.tell() <= _FIRST:
        return None
    frame.__class__ = _Frame
    return frame


def count_received(transport: Any, came: int) -> None:
    """What kafka-python does for all that it is handed over."""
    if transport._protocol._sensors:
        transport._protocol._sensors.bytes_received.record(came)
