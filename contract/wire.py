"""A client that speaks the wire protocol itself: it may write several requests before it reads an answer."""

from __future__ import annotations

import itertools
import select
import socket
import ssl
import struct
from typing import Any

from kafka.protocol.api_header import ResponseClassRegistry

__all__ = ["TIMEOUT_S", "Ended", "Wire"]

TIMEOUT_S = 20.0
"""How long an answer may take before the test fails; what is told to park parks far longer."""


class Ended(EOFError):
    """The broker has closed the connection."""


class Wire:
    """One connection to a broker. A context manager that closes it."""

    def __init__(self, address: str, client_id: str = "wire", timeout_s: float = TIMEOUT_S) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout_s)
        self._client_id = client_id
        self._numbers = itertools.count(1)
        self._sent: dict[int, Any] = {}

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def secure(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")

    def encoded(self, request: Any, version: int) -> tuple[int, bytes]:
        """The correlation id of a request, and its frame."""
        number = next(self._numbers)
        request.API_VERSION = version
        request.with_header(correlation_id=number, client_id=self._client_id)
        self._sent[number] = request
        return number, bytes(request.encode(header=True, framed=True))

    def send(self, request: Any, version: int) -> int:
        """Write a request; returns its correlation id."""
        number, frame = self.encoded(request, version)
        self.socket.sendall(frame)
        return number

    def receive(self) -> tuple[int, Any]:
        """Read an answer: the correlation id and the response. Raises Ended."""
        frame = self.receive_frame()
        (number,) = struct.unpack_from(">i", frame)
        request = self._sent.pop(number)
        response = ResponseClassRegistry.get_response_class(request.header)
        return number, response.decode(frame, version=request.API_VERSION, header=True)

    def receive_frame(self) -> bytes:
        """Read an answer, without its length. Raises Ended."""
        (size,) = struct.unpack(">i", self._read(4))
        return self._read(size)

    def answer(self, number: int) -> Any:
        """Read an answer, which must be that of this request."""
        answered, response = self.receive()
        assert answered == number, f"the answer to request {answered} came where that to {number} was next"
        return response

    def ask(self, request: Any, version: int) -> Any:
        """Send a request and read its answer."""
        return self.answer(self.send(request, version))

    def is_silent(self, seconds: float = 0.3) -> bool:
        """Whether the broker neither sends anything nor closes the connection for some time."""
        return not select.select([self.socket], [], [], seconds)[0]

    def has_ended(self) -> bool:
        """Wait until the broker closes the connection; False where it sends something first, or is silent."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = self.socket.recv(size - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                raise Ended("the broker has closed the connection")
            data += more
        return data
