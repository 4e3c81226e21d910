"""Has transports write at once, and read with one registration."""

from __future__ import annotations

import selectors
import time
from typing import Any

from kafka.errors import KafkaConnectionError, KafkaProtocolError

from pooledkafka._wire.receiving import NOT_NOW, count_received

__all__ = ["transmit_directly"]


def transmit_directly(transport: Any) -> None:
    """Have ``transport``, of a loop with ``Steps``, send what is written when it is, and wait for what comes for good.

    kafka-python's starts a task for what is written, which waits until the socket can take it, which it nearly always
    can, and registers anew for each answer: two tasks, and seven calls of the system, for each request.
    """
    _write_at_once(transport)
    _keep_reading(transport)


def _write_at_once(transport: Any) -> None:
    write_later, send = transport.write, transport._sock_send
    failure: Exception | None = None

    def sent_later() -> tuple[int, Any]:
        return send() if failure is None else (0, KafkaConnectionError(failure))

    def write(data: bytes) -> None:
        nonlocal failure
        # What waits may do so without a task that writes it, where that has failed.
        if not data or not transport._write or transport._closed or transport._write_buffer or transport._writing:
            write_later(data)  # which refuses, or puts it behind what waits
            return
        sent = 0
        try:
            sent = transport._sock.send(data)
        except NOT_NOW:
            pass
        except Exception as error:  # told by the task that writes: who writes now does not expect the connection's end
            failure = error
        else:
            transport.last_write = time.monotonic()
            if transport._protocol and transport._protocol._sensors:
                transport._protocol._sensors.bytes_sent.record(sent)
        if sent < len(data):
            write_later(memoryview(data)[sent:])

    transport.write, transport._sock_send = write, sent_later


def _keep_reading(transport: Any) -> None:
    net = transport._net

    async def read_from_sock() -> None:
        sock = transport._sock
        net.register_event(sock, selectors.EVENT_READ, net._current)
        try:
            while transport._read and not transport._closed:
                await net.readable()
                data, error = transport._sock_recv()
                if error:
                    transport.abort(error=error)
                    return
                transport.last_read = time.monotonic()
                count_received(transport, len(data))
                try:
                    transport._protocol.data_received(data)
                except KafkaProtocolError as failure:
                    transport.abort(error=failure)
                    return
        finally:  # also where the task is cancelled, as closing the transport does
            net.unregister_event(sock, selectors.EVENT_READ)

    transport._read_from_sock = read_from_sock
