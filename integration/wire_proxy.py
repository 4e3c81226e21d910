"""A SOCKS5 proxy between clients and brokers that counts the requests outstanding at every instant."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter, deque
from types import TracebackType

__all__ = ["WireProxy"]


class WireProxy:
    """Relays whatever kafka-python connects to through ``proxy_url``; a context manager.

    A request counts from when all of it has come from the client until its answer is about to be passed on: before the
    client can know of the answer, so that what it sends next is never counted too many.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the four below
        self._outstanding = 0
        self.most = 0
        self.requests: Counter[int] = Counter()  # by API key
        self.answered_bytes: Counter[tuple[int, int]] = Counter()  # by the broker's port and API key
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: set[socket.socket] = set()  # guarded by _lock
        self._threads: list[threading.Thread] = []  # the accepting thread's, until that has ended

    @property
    def url(self) -> str:
        """For ``proxy_url=``."""
        return f"socks5://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> WireProxy:
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # its other end has gone already
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                broker = self._connect(client)
            except (OSError, EOFError):
                return
            with broker:
                with self._lock:
                    self._sockets |= {client, broker}
                # The API keys of the answers that this connection still owes, in their order; changed under _lock.
                awaited: deque[int] = deque()
                answers = threading.Thread(target=self._relay, args=(broker, client, awaited, False), daemon=True)
                answers.start()
                self._relay(client, broker, awaited, True)
                answers.join()
                with self._lock:
                    self._sockets -= {client, broker}
                    self._outstanding -= len(awaited)

    @staticmethod
    def _connect(client: socket.socket) -> socket.socket:
        _, methods = struct.unpack("!BB", receive(client, 2))
        receive(client, methods)
        client.sendall(b"\x05\x00")
        _, _, _, kind = struct.unpack("!BBBB", receive(client, 4))
        assert kind == 1, "an IPv4 address"
        address = socket.inet_ntoa(receive(client, 4))
        (port,) = struct.unpack("!H", receive(client, 2))
        assert address.startswith("127."), "brokers on this machine only"
        broker = socket.create_connection((address, port), timeout=10)
        broker.settimeout(None)
        client.sendall(b"\x05\x00\x00\x01" + bytes(6))
        return broker

    def _relay(self, source: socket.socket, sink: socket.socket, awaited: deque[int], requests: bool) -> None:
        try:
            while True:
                prefix = receive(source, 4)
                frame = receive(source, struct.unpack("!i", prefix)[0])
                with self._lock:
                    if requests:
                        awaited.append(struct.unpack("!h", frame[:2])[0])
                        self._outstanding += 1
                        self.most = max(self.most, self._outstanding)
                        self.requests[awaited[-1]] += 1
                    else:
                        self.answered_bytes[source.getpeername()[1], awaited.popleft()] += len(frame)
                        self._outstanding -= 1
                sink.sendall(prefix + frame)
        except (OSError, EOFError):
            for sock in (source, sink):
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # closed by the other direction


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes; raises EOFError if the connection ends before."""
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
